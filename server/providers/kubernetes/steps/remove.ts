import type { Removed, StepContext, StepResult } from '../../provider.ts';
import type { KubeClient } from '../api/client.ts';
import type { Connection } from '../api/connections.ts';
import type { KubeObject } from '../api/models.ts';
import { labels } from '../api/names.ts';
import { describeStuckNamespace } from '../reasons/namespaces.ts';
import { ignoreConflict } from './apply.ts';
import { discardHome, retainHome, volumeOfClaim } from './homes.ts';
import { takeSnapshot } from './snapshots.ts';
import { type State, writeRemovedState, writeState } from './state.ts';

/** The watch of namespaces triggers a step when one is gone; polling covers what it misses, less often over time. */
const pollMs = { min: 2_000, max: 30_000 };
const stuckAfterMs = 30_000;

/** One step toward deleting everything, except the home with `keep`. */
export async function removeStep(
  { client, view, grants }: Connection,
  workspaceId: string,
  before: State,
  home: 'keep' | 'discard',
  context: StepContext,
  { installation, now }: { installation: string; now: Date },
): Promise<StepResult<Removed>> {
  const namespace = before.namespace!;
  let state: State = { ...before };
  const volume = state.homeVolume ?? volumeOfClaim(view.get('PersistentVolumeClaim', namespace, 'home'));
  // First of all, and again if a retried deletion has a different choice.
  if (volume && state.homeDisposition !== home) {
    state = await disposeOfHome(client, volume, workspaceId, state, home, context, { installation, now });
  }

  const ref = { apiVersion: 'v1', kind: 'Namespace', name: namespace } as const;
  // The watch follows a terminating namespace: a call per workspace adds up when many are deleted at once.
  const seen = view.get('Namespace', '', namespace);
  const there = seen?.metadata.deletionTimestamp ? seen : await client.get(ref);
  const isOurs = there?.metadata.labels?.[labels.workspace] === workspaceId;
  if (there && !isOurs)
    context.log(`the namespace ${namespace} is no longer this workspace's; it is not deleted`, 'warn');
  if (there && isOurs) {
    const { uid, deletionTimestamp } = there.metadata;
    if (!deletionTimestamp && volume && state.homeRetained) {
      const { owner = '', name = '' } = namesOf(there);
      const server = (await grants.identity())?.label;
      const of = { installation, workspaceId, owner, name, namespace, volume, server };
      const { done, snapshot } = await takeSnapshot(client, of, state.snapshot, now, context);
      if (snapshot) state.snapshot = snapshot;
      if (!done) return again(state);
    }
    if (!deletionTimestamp) {
      if (volume) await removeWorkspacePod({ client, view }, namespace, volume);
      await client.remove(ref, { ...(uid && { uid }) });
    }
    const waited = now.getTime() - Date.parse(deletionTimestamp ?? now.toISOString());
    const why = waited > stuckAfterMs ? describeStuckNamespace(there) : '';
    const text = `The namespace ${namespace} is still terminating${why}.`;
    if (why && state.lastReason !== text) context.log(text, 'warn');
    return again(
      { ...state, ...(why && { lastReason: text }) },
      Math.round(waited / 2),
      why ? text : undefined,
    );
  }
  return {
    kind: 'done',
    state: writeRemovedState(state),
    homeRetained: state.homeRetained === true && volume !== undefined,
  };
}

/**
 * Deletes the pod and the claim of the home just before the namespace. Kubernetes begins with the content of a deleted
 * namespace after 5 s, and if anything in it still terminates then, looks again only after about 8 s. Whether the volume
 * outlives its claim was set by `disposeOfHome`.
 */
async function removeWorkspacePod(
  { client, view }: Pick<Connection, 'client' | 'view'>,
  namespace: string,
  volume: string,
): Promise<void> {
  const statefulSet = view.get('StatefulSet', namespace, 'workspace');
  const claim = view.get('PersistentVolumeClaim', namespace, 'home');
  const isOfHome = volumeOfClaim(claim) === volume;
  for (const object of [statefulSet, isOfHome ? claim : null]) {
    if (!object || object.metadata.deletionTimestamp) continue;
    const { apiVersion, kind, metadata } = object;
    const { name, uid } = metadata;
    await client.remove({ apiVersion, kind, namespace, name }, { ...(uid && { uid }) }).catch(ignoreConflict);
  }
}

async function disposeOfHome(
  client: KubeClient,
  volume: string,
  workspaceId: string,
  before: State,
  home: 'keep' | 'discard',
  context: StepContext,
  { installation, now }: { installation: string; now: Date },
): Promise<State> {
  // If the deletion is abandoned, the next start labels the volume as this workspace's again.
  const { protectedVolume: _, ...rest } = before;
  const state: State = { ...rest, homeVolume: volume, homeDisposition: home, homeRetained: false };
  // The restore did not finish: the home still belongs to the deleted workspace.
  if (before.restoring) await retainHome(client, volume, null, now);
  else if (home === 'discard') await discardHome(client, volume);
  else {
    const size = await retainHome(client, volume, { installation, workspaceId }, now);
    if (size !== null) return { ...state, homeRetained: true, homeSize: size };
    context.log(
      `the volume of the home (${volume}) no longer exists on the cluster; nothing is kept`,
      'warn',
    );
  }
  return state;
}

const again = (state: State, afterMs = 0, message?: string): StepResult<never> => ({
  kind: 'pending',
  state: writeState(state),
  ...(message && { message }),
  retryAfterMs: Math.min(Math.max(afterMs, pollMs.min), pollMs.max),
});

const namesOf = ({ metadata }: Pick<KubeObject, 'metadata'>) => ({
  owner: metadata.labels?.[labels.owner],
  name: metadata.labels?.[labels.name],
});
