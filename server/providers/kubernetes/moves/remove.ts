import type { Removed, StepContext, StepResult } from '../../provider.ts';
import type { KubeClient, KubeObject } from '../api/client.ts';
import type { Connection } from '../api/connections.ts';
import { labels } from '../api/names.ts';
import { describeStuckNamespace } from '../reasons/namespaces.ts';
import { discardHome, retainHome, volumeOfClaim } from './homes.ts';
import { takeSnapshot } from './snapshots.ts';
import { type State, writeState } from './state.ts';

/** The watch of namespaces wakes a deletion that waits; this is for what it misses, longer the longer it takes. */
const pollMs = { min: 2_000, max: 30_000 };
const stuckAfterMs = 30_000;

/** One move toward nothing left but, with `keep`, the home. */
export async function removeMove(
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
  // Before anything else, and again should the developer have changed their mind since an attempt that failed.
  if (volume && state.homeDisposition !== home) {
    state = await disposeOfHome(client, volume, workspaceId, state, home, context, { installation, now });
  }

  const ref = { apiVersion: 'v1', kind: 'Namespace', name: namespace };
  // One that ends is seen to its end by the watch: many that end at once are not asked for one by one.
  const seen = view.get('Namespace', '', namespace);
  const there = seen?.metadata.deletionTimestamp ? seen : await client.get(ref);
  const isOurs = there?.metadata.labels?.[labels.workspace] === workspaceId;
  if (there && !isOurs)
    context.log(`the namespace ${namespace} belongs to somebody else by now; it is left alone`, 'warn');
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
    if (!deletionTimestamp) await client.remove(ref, { ...(uid && { uid }) });
    // What is in it takes its time to end; what has not by then is worth a word.
    const waited = now.getTime() - Date.parse(deletionTimestamp ?? now.toISOString());
    const why = waited > stuckAfterMs ? describeStuckNamespace(there) : '';
    const text = `The namespace ${namespace} does not end yet${why}.`;
    if (why && state.lastReason !== text) context.log(text, 'warn');
    return again(
      { ...state, ...(why && { lastReason: text }) },
      Math.round(waited / 2),
      why ? text : undefined,
    );
  }
  const { homeVolume, cluster, snapshot } = state;
  return {
    kind: 'done',
    // What a restore needs, and a deletion that is asked for again.
    state: writeState({
      ...(cluster && { cluster }),
      namespace,
      ...(homeVolume && { homeVolume }),
      ...(state.homeDisposition && { homeDisposition: state.homeDisposition }),
      ...(state.homeRetained !== undefined && { homeRetained: state.homeRetained }),
      ...(state.homeRetained && state.homeSize && { homeSize: state.homeSize }),
      ...(snapshot && { snapshot }),
    }),
    homeRetained: state.homeRetained === true && volume !== undefined,
  };
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
  // Should the deletion be given up, the next start makes the volume this workspace's again.
  const { protectedVolume: _, ...rest } = before;
  const state: State = { ...rest, homeVolume: volume, homeDisposition: home, homeRetained: false };
  // It never came to be ours: it goes back to whom it was of.
  if (before.restoring) await retainHome(client, volume, null, now);
  else if (home === 'discard') await discardHome(client, volume);
  else {
    const size = await retainHome(client, volume, { installation, workspaceId }, now);
    if (size !== null) return { ...state, homeRetained: true, homeSize: size };
    context.log(`the volume of the home (${volume}) is gone from the cluster; nothing is kept`, 'warn');
  }
  return state;
}

const again = (state: State, afterMs = 0, message?: string): StepResult<never> => ({
  kind: 'pending',
  state: writeState(state),
  ...(message && { message }),
  retryAfterMs: Math.min(Math.max(afterMs, pollMs.min), pollMs.max),
});

const namesOf = ({ metadata }: KubeObject) => ({
  owner: metadata.labels?.[labels.owner],
  name: metadata.labels?.[labels.name],
});
