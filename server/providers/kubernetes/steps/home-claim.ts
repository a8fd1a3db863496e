import type { AgentLaunch, StepContext, WorkspaceSpec } from '../../provider.ts';
import type { Connection } from '../api/connections.ts';
import type { Kube } from '../api/models.ts';
import { annotations } from '../api/names.ts';
import { StepFailure } from '../objects/failure.ts';
import { sectionOf } from '../objects/section.ts';
import { removeUnchanged } from './apply.ts';
import { hasOtherStorageClass, homeVolumeOf } from './claims.ts';
import { type HomeVolume, protectHome, releaseHome, volumeOfClaim } from './homes.ts';
import { readState, type State } from './state.ts';
import { forceDelete, isOfBuild, removePod } from './workloads.ts';

type Claim = Kube<'PersistentVolumeClaim'>;

/**
 * Notes the volume that a start restores. Recorded before anything uses it: a removal that finds only a claim would take the
 * home for this workspace's own, and discard it.
 */
export function noteRestore(spec: WorkspaceSpec, state: State): void {
  if (!spec.restore || state.homeVolume) return;
  const from = readState(spec.restore.state).homeVolume;
  if (!from)
    throw new StepFailure({
      code: 'home-not-restorable',
      message: 'The volume of the home to restore is not known.',
      hint: 'An administrator can look for volumes labelled cde.dev/home=kept.',
      fault: 'system',
    });
  state.homeVolume = from;
  state.restoring = spec.restore.workspaceId;
}

/** Makes the volume of a bound claim outlive the claim, unless that was done before. */
export async function protectVolume(
  connection: Connection,
  { workspaceId, owner, name }: WorkspaceSpec,
  state: State,
  volume: string,
  installation: string,
): Promise<void> {
  if (state.protectedVolume === volume) return;
  state.homeVolume = volume;
  if (await protectHome(connection, volume, { installation, workspaceId, owner, name }))
    state.protectedVolume = volume;
}

/**
 * Deletes a claim of the home that can never be bound, and waits for one that is being deleted. What the start waits for;
 * null if there is no claim, or it can stay.
 */
export async function replaceClaim(
  connection: Connection,
  spec: WorkspaceSpec,
  { buildId }: AgentLaunch,
  state: State,
  claim: Claim | null,
  context: StepContext,
  { installation, now }: { installation: string; now: () => Date },
): Promise<{ state: State; waits: string } | null> {
  if (!claim) return null;
  const namespace = state.namespace!;
  const waits = 'The claim of the home was never bound to a volume; it is created again.';
  if (claim.metadata.deletionTimestamp) {
    const volume = volumeOfClaim(claim);
    // A volume that is restored outlives its claim already, and is its former workspace's until this one runs.
    if (volume && !state.restoring) await protectVolume(connection, spec, state, volume, installation);
    const users = await freeClaim(connection, namespace, buildId, context, now());
    if (!volume) return { state, waits };
    return {
      state,
      waits: `The claim of the home is being deleted; its volume is kept and gets a new claim${users}.`,
    };
  }
  // One of this build has the template's class: another replica applied it, and was killed before it could record that.
  const isOfThisBuild = claim.metadata.annotations?.[annotations.build] === buildId;
  if (isOfThisBuild || !hasOtherStorageClass(claim, sectionOf(spec))) return null;
  await removePod(connection, namespace, (pod) => !isOfBuild(pod, buildId));
  // Not if it has changed: our watch may lag, and the claim may be bound and in use by now.
  await removeUnchanged(connection.client, claim);
  return { state, waits };
}

/**
 * Removes the pod that keeps a deleted claim from going. Also a pod of this build: it may have started on the claim just
 * before. Pods without a node do not hold claims. Returns which other pods do.
 */
async function freeClaim(
  connection: Connection,
  namespace: string,
  buildId: string,
  context: StepContext,
  now: Date,
): Promise<string> {
  const { client, view } = connection;
  const pod = view.get('Pod', namespace, 'workspace-0');
  if (pod?.metadata.deletionTimestamp) await forceDelete(client, pod, now, context);
  await removePod(
    connection,
    namespace,
    (each) => !isOfBuild(each, buildId) || each.spec?.nodeName !== undefined,
  );
  // The developer's own pods have no label of ours, so no watch shows them.
  const others = (await client.list({ apiVersion: 'v1', kind: 'Pod', namespace }))
    .filter(({ metadata, spec, status }) => {
      const hasEnded = status?.phase === 'Succeeded' || status?.phase === 'Failed';
      const isUser = spec?.volumes?.some(
        ({ persistentVolumeClaim }) => persistentVolumeClaim?.claimName === 'home',
      );
      return isUser && !hasEnded && spec?.nodeName && metadata.name !== 'workspace-0';
    })
    .map(({ metadata }) => metadata.name);
  return others.length > 0 ? ` once it is no longer used by ${others.sort().join(', ')}` : '';
}

/**
 * The volume for the home's claim; null to have the cluster provision one. A known home that is gone is an error, and
 * never silently replaced by an empty one.
 */
export async function findHome(
  { client, record }: Connection,
  spec: WorkspaceSpec,
  state: State,
  claim: Claim | null,
): Promise<HomeVolume | 'in-use' | null> {
  const namespace = state.namespace!;
  if (claim && volumeOfClaim(claim)) return homeVolumeOf(claim);
  if (!state.homeVolume) return null;
  const home = await releaseHome(client, state.homeVolume, namespace, claim?.metadata.uid);
  if (home === null) {
    const snapshot = readState(spec.restore?.state ?? {}).snapshot?.content;
    throw new StepFailure({
      code: 'home-lost',
      message: `The volume of the home (${state.homeVolume}) is gone from the cluster ${record.name}.`,
      detail: `It was deleted outside of cde. It is not replaced by an empty home.${snapshot ? ` A snapshot of it exists: ${snapshot}.` : ''}`,
      hint: 'Restore the volume from a backup under the same name, or delete the workspace and its home.',
      fault: 'system',
    });
  }
  // A claim stays Lost even if its volume comes back.
  if (claim?.status?.phase === 'Lost')
    await client.remove({ apiVersion: 'v1', kind: 'PersistentVolumeClaim', namespace, name: 'home' });
  delete state.protectedVolume;
  return home;
}
