import type { ProviderState } from '../../provider.ts';
import type { KubeRef } from '../api/client.ts';

/** A workload that a stop has scaled to zero, and the size it had before. */
export interface ScaledWorkload {
  ref: KubeRef;
  /** Replicas; `running` for a job, which is suspended instead. */
  size: number | 'running';
}

/** What the provider remembers of a workspace between steps. Every field is optional: a step can be interrupted. */
export interface State {
  cluster?: string;
  /** Recorded before anything is created in it. */
  namespace?: string;
  /** The path of the home inside the workspace; the server passes it to the agent. */
  home?: string;
  homeVolume?: string;
  /** The volume that was labelled as this workspace's and set to outlive its claim. */
  protectedVolume?: string;
  /** The workspace whose home this one takes over; the home stays that workspace's until the first start succeeds. */
  restoring?: string;
  /** The build whose objects were applied, and when; time in which the cluster was unreachable does not count. */
  appliedBuild?: string;
  appliedAt?: string;
  /** The template's own objects, so that those that a newer version drops can be pruned. */
  inventory?: KubeRef[];
  /** The running pod, and its restart count when it was first seen running. */
  podUid?: string;
  restarts?: number;
  /** Hash of the ResourceQuota as the cluster returned it, to detect edits. */
  quotaHash?: string;
  /** The other objects that bound the namespace, by kind, as the cluster returned them. */
  guards?: Record<string, object>;
  /** Since when the pod runs while its services are not ready. */
  runningSince?: string;
  /** The last reason written to the build's log, so that it is written once. */
  lastReason?: string;
  /** Since when the cluster is unreachable during a build. */
  unreachableSince?: string;
  /** What a stop has scaled down, for the next start to scale up. */
  scaled?: ScaledWorkload[];
  stoppingSince?: string;
  /** The quota was set to no pods, because something kept creating them. */
  quotaClosed?: boolean;
  /** Of a deletion: what was done with the home's volume, and whether there was one to retain. */
  homeDisposition?: 'keep' | 'discard';
  homeRetained?: boolean;
  /** The size of a retained home. */
  homeSize?: string;
  /** Of a deletion: the snapshot of the home, and since when it is awaited. */
  snapshot?: { name: string; since: string; content?: string };
}

/**
 * Fields by their name before they were renamed. A replica of the previous release knows only these, and runs beside this
 * one during a rolling upgrade, so states are written with both. Delete them, and `hasFormerNames`, in the next release.
 */
const formerNames = {
  appliedBuild: 'applied',
  quotaHash: 'quota',
  runningSince: 'runsSince',
  lastReason: 'said',
  unreachableSince: 'awaySince',
  quotaClosed: 'closed',
  homeDisposition: 'fate',
  homeRetained: 'kept',
} satisfies Partial<Record<keyof State, string>>;

/**
 * An older replica changes and deletes only the former names, and passes on what it does not know. So in a state that was
 * written with both, the former name has the newest value, and a field without it was deleted.
 */
export function readState({ hasFormerNames, ...stored }: ProviderState): State {
  const fields: Record<string, unknown> = { ...stored };
  for (const [name, former] of Object.entries(formerNames)) {
    if (fields[former] !== undefined) fields[name] = fields[former];
    else if (hasFormerNames) delete fields[name];
    delete fields[former];
  }
  return fields;
}

export function writeState(state: State): ProviderState {
  const fields: Record<string, unknown> = { ...state, hasFormerNames: true };
  for (const [name, former] of Object.entries(formerNames)) fields[former] = fields[name];
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
}

/** What a deletion leaves: what a restore or a repeated deletion needs. */
export const writeRemovedState = ({
  cluster,
  namespace,
  homeVolume,
  homeDisposition,
  homeRetained,
  homeSize,
  snapshot,
}: State): ProviderState =>
  writeState({
    ...(cluster && { cluster }),
    ...(namespace && { namespace }),
    ...(homeVolume && { homeVolume }),
    ...(homeDisposition && { homeDisposition }),
    ...(homeRetained !== undefined && { homeRetained }),
    ...(homeRetained && homeSize && { homeSize }),
    ...(snapshot && { snapshot }),
  });
