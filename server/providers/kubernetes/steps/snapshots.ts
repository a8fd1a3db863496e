import type { StepContext } from '../../provider.ts';
import { type KubeClient, KubeError } from '../api/client.ts';
import { apiVersions, type KubeObject } from '../api/models.ts';
import { annotations, labels } from '../api/names.ts';
import { type HomeOwner, homeLabels, isExpired } from './homes.ts';
import type { State } from './state.ts';

/** From the CSI snapshot controller, which many clusters do not have. */
const apiVersion = apiVersions.VolumeSnapshot;
const contentKind = 'VolumeSnapshotContent';
/** A deletion waits no longer: the volume itself is retained, and the snapshot is only an extra. */
const maxWaitMs = 2 * 60_000;

type Snapshot = NonNullable<State['snapshot']>;

/**
 * One step toward a snapshot of the home that outlives its namespace. `done` without `content`: the cluster cannot
 * snapshot this volume, or taking it failed, which is logged.
 */
export async function takeSnapshot(
  client: KubeClient,
  of: HomeOwner & { namespace: string; volume: string },
  before: Snapshot | undefined,
  now: Date,
  context: StepContext,
): Promise<{ done: boolean; snapshot?: Snapshot }> {
  try {
    return before
      ? await waitForSnapshot(client, of, before, now, context)
      : await createSnapshot(client, of, now, context);
  } catch (error) {
    if (!(error instanceof KubeError) || error.unreachable) throw error;
    context.log(`no snapshot of the home: ${error.message}`, 'warn');
    return { done: true, ...(before && { snapshot: before }) };
  }
}

async function createSnapshot(
  client: KubeClient,
  of: HomeOwner & { namespace: string; volume: string },
  now: Date,
  context: StepContext,
): Promise<{ done: boolean; snapshot?: Snapshot }> {
  if (!(await client.serves(apiVersion, 'VolumeSnapshot'))) return { done: true };
  const volume = await client.get({ apiVersion: 'v1', kind: 'PersistentVolume', name: of.volume });
  const driver = volume?.spec?.csi?.driver;
  if (!driver) return { done: true };
  const fitting = (await client.list({ apiVersion, kind: 'VolumeSnapshotClass' })).filter(
    (each) => each.driver === driver,
  );
  const chosen = fitting.find(isDefault) ?? (fitting.length === 1 ? fitting[0] : undefined);
  if (!chosen) return { done: true };
  await client.apply({
    apiVersion,
    kind: 'VolumeSnapshot',
    metadata: { name: 'home', namespace: of.namespace, labels: homeLabels(of, 'kept') },
    spec: {
      volumeSnapshotClassName: chosen.metadata.name,
      source: { persistentVolumeClaimName: 'home' },
    },
  });
  context.log(`a snapshot of the home is being taken (${chosen.metadata.name})`);
  return { done: false, snapshot: { name: 'home', since: now.toISOString() } };
}

const isDefault = ({ metadata }: Pick<KubeObject, 'metadata'>) =>
  metadata.annotations?.['snapshot.storage.kubernetes.io/is-default-class'] === 'true';

async function waitForSnapshot(
  client: KubeClient,
  of: HomeOwner & { namespace: string },
  before: Snapshot,
  now: Date,
  context: StepContext,
): Promise<{ done: boolean; snapshot: Snapshot }> {
  if (before.content) return { done: true, snapshot: before };
  const found = await client.get({
    apiVersion,
    kind: 'VolumeSnapshot',
    namespace: of.namespace,
    name: before.name,
  });
  const content = found?.status?.boundVolumeSnapshotContentName;
  if (content && found?.status?.readyToUse) {
    // The class may delete the snapshot with its object, which is deleted with the namespace.
    await client.patch(
      { apiVersion, kind: contentKind, name: content },
      {
        metadata: {
          labels: homeLabels(of, 'kept'),
          annotations: { [annotations.keptAt]: now.toISOString() },
        },
        spec: { deletionPolicy: 'Retain' },
      },
    );
    context.log(`a snapshot of the home was taken: ${content}`);
    return { done: true, snapshot: { ...before, content } };
  }
  const waited = now.getTime() - Date.parse(before.since);
  if (found && waited < maxWaitMs) return { done: false, snapshot: before };
  const why =
    found?.status?.error?.message ?? (found ? 'it was not ready within 2 minutes' : 'it was deleted');
  context.log(`no snapshot of the home: ${why}. The volume itself is kept.`, 'warn');
  return { done: true, snapshot: before };
}

/** Deletes snapshots of homes that were retained before `before`. */
export async function purgeSnapshots(
  client: KubeClient,
  installation: string,
  before: Date,
  options: { except?: ReadonlySet<string>; only?: string } = {},
): Promise<void> {
  if (!(await client.serves(apiVersion, contentKind))) return;
  const contents = await client.list({
    apiVersion,
    kind: contentKind,
    labels: `${labels.installation}=${installation},${labels.home}=kept`,
  });
  for (const content of contents) {
    if (content.metadata.deletionTimestamp || !isExpired(content, before, options)) continue;
    const ref = { apiVersion, kind: contentKind, name: content.metadata.name };
    await client.patch(ref, { spec: { deletionPolicy: 'Delete' } });
    await client.remove(ref);
  }
}
