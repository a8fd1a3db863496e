import type { ProviderState } from '../provider.ts';
import type { KubeRef } from './client.ts';

/** A workload that a stop has brought to nothing, and what it was. */
export interface Sized {
  ref: KubeRef;
  /** Replicas; `running` of what is suspended instead. */
  size: number | 'running';
}

/** What the provider remembers of a workspace between moves. All of it can be absent: moves are cut short. */
export interface State {
  cluster?: string;
  /** Written down before anything is made in it. */
  namespace?: string;
  /** The home's directory inside; the server tells it to the agent. */
  home?: string;
  homeVolume?: string;
  /** The volume that was made to outlive its claim, and labelled as this workspace's. */
  protectedVolume?: string;
  /** The workspace whose home this one is about to take over; its home until the first start is done. */
  restoring?: string;
  /** The build whose objects were applied, and when; time in which the cluster was away does not count. */
  applied?: string;
  appliedAt?: string;
  /** What the template's own part was made of, to prune what a newer version does not name. */
  inventory?: KubeRef[];
  /** The pod that runs, and how often its container had been started when it was found running. */
  podUid?: string;
  restarts?: number;
  /** Of the ResourceQuota as the cluster returned it: an edit of it shows. */
  quota?: string;
  /** What else bounds the namespace, by kind, as the cluster returned it. */
  guards?: Record<string, object>;
  /** Since when the workspace runs while its services are waited for. */
  runsSince?: string;
  /** The last reason that was written into the build's log. */
  said?: string;
  /** Since when the cluster does not answer a build that is under way. */
  awaySince?: string;
  /** A stop has begun: what it has scaled down, for the start to bring back. */
  scaled?: Sized[];
  stoppingSince?: string;
  /** The quota was closed, since something kept making pods. */
  closed?: boolean;
  /** Of a deletion: what was done with the home's volume, and whether there was one to keep. */
  fate?: 'keep' | 'discard';
  kept?: boolean;
  /** Of a home that is kept: how large its volume is. */
  homeSize?: string;
  /** Of a deletion: the snapshot of the home, and since when it is waited for. */
  snapshot?: { name: string; since: string; content?: string };
}

export const read = (state: ProviderState): State => state as State;
export const write = (state: State): ProviderState =>
  Object.fromEntries(Object.entries(state).filter(([, value]) => value !== undefined));
