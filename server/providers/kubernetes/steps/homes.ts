import type { PurgeResult } from '../../provider.ts';
import { type KubeClient, KubeError, type KubeRef } from '../api/client.ts';
import type { Connection } from '../api/connections.ts';
import type { Kube, KubeObject } from '../api/models.ts';
import { annotations, labels, labelValue } from '../api/names.ts';

/** A home's volume. */
export interface HomeVolume {
  name: string;
  size: string;
  storageClass: string;
}

/** The workspace of a home. Its volume carries this in labels, so that it survives the loss of the database. */
export interface HomeOwner {
  installation: string;
  workspaceId: string;
  owner: string;
  name: string;
  /** The label of a server with the smaller role. */
  server?: string | undefined;
}

const volumeRef = (name: string): KubeRef<'PersistentVolume'> => ({
  apiVersion: 'v1',
  kind: 'PersistentVolume',
  name,
});

const readVolume = ({ metadata, spec }: Kube<'PersistentVolume'>): HomeVolume => ({
  name: metadata.name,
  size: spec?.capacity?.storage ?? '1Gi',
  storageClass: spec?.storageClassName ?? '',
});

/** Null when it does not exist. */
async function patchVolume(
  client: KubeClient,
  name: string,
  patch: object,
): Promise<Kube<'PersistentVolume'> | null> {
  try {
    return await client.patch(volumeRef(name), patch);
  } catch (error) {
    if (error instanceof KubeError && error.status === 404) return null;
    throw error;
  }
}

/** The volume that a claim is bound to; null while it is unbound. */
export const volumeOfClaim = (claim: Kube<'PersistentVolumeClaim'> | null): string | null =>
  (claim?.status?.phase === 'Bound' && claim.spec?.volumeName) || null;

/** The labels of a home's volume and of its snapshots. */
export const homeLabels = (of: HomeOwner, use: 'used' | 'kept'): Record<string, string> => ({
  [labels.installation]: of.installation,
  [labels.workspace]: of.workspaceId,
  [labels.owner]: labelValue(of.owner),
  [labels.name]: labelValue(of.name),
  [labels.home]: use,
  ...(of.server && { [labels.server]: of.server }),
});

/** Makes the volume outlive its claim and its namespace. False when it does not exist. */
export async function protectHome(
  { client, grants }: Pick<Connection, 'client' | 'grants'>,
  name: string,
  of: HomeOwner,
): Promise<boolean> {
  const server = (await grants.identity())?.label;
  const volume = await patchVolume(client, name, {
    metadata: { labels: homeLabels({ ...of, server }, 'used'), annotations: { [annotations.keptAt]: null } },
    spec: { persistentVolumeReclaimPolicy: 'Retain' },
  });
  return volume !== null;
}

/**
 * Makes a volume available to the claim of the home in `namespace`, which has this uid if it exists. A volume stays bound
 * to a claim that is gone until the cluster has noticed, and cannot be bound to a new one of the same name meanwhile. Null
 * when the volume is gone or being deleted.
 */
export async function releaseHome(
  client: KubeClient,
  name: string,
  namespace: string,
  claimUid: string | undefined,
): Promise<HomeVolume | 'in-use' | null> {
  const volume = await client.get(volumeRef(name));
  if (!volume || volume.metadata.deletionTimestamp || volume.metadata.labels?.[labels.home] === 'given-up')
    return null;
  const claim = volume.spec?.claimRef;
  const isHome = claim?.namespace === namespace && claim.name === 'home';
  if (claim && !isHome && volume.status?.phase === 'Bound') return 'in-use';
  if (!claim || (isHome && (claim.uid === undefined || claim.uid === claimUid))) return readVolume(volume);
  const released = await patchVolume(client, name, {
    spec: {
      persistentVolumeReclaimPolicy: 'Retain',
      // Reserved for this claim, so that no other can be bound between two writes.
      claimRef: {
        apiVersion: 'v1',
        kind: 'PersistentVolumeClaim',
        namespace,
        name: 'home',
        uid: null,
        resourceVersion: null,
      },
    },
  });
  return released && readVolume(released);
}

/**
 * Retains the home of a deleted workspace until `purgeRetainedHomes` finds it expired. With `of` null, its labels keep
 * naming the workspace they named. Returns the size; null when there was no volume.
 */
export async function retainHome(
  client: KubeClient,
  name: string,
  of: Omit<HomeOwner, 'owner' | 'name'> | null,
  now: Date,
): Promise<string | null> {
  const volume = await patchVolume(client, name, {
    metadata: {
      labels: {
        ...(of && { [labels.installation]: of.installation, [labels.workspace]: of.workspaceId }),
        [labels.home]: 'kept',
      },
      annotations: { [annotations.keptAt]: now.toISOString() },
    },
    spec: { persistentVolumeReclaimPolicy: 'Retain' },
  });
  return volume && readVolume(volume).size;
}

/** Has the storage deleted together with its claim, or at once if the claim is gone. */
export async function discardHome(client: KubeClient, name: string): Promise<void> {
  const volume = await patchVolume(client, name, {
    metadata: { labels: { [labels.home]: 'given-up' } },
    spec: { persistentVolumeReclaimPolicy: 'Delete' },
  });
  // Reserved for a claim that was never created: no claim will release it.
  if (volume?.status?.phase === 'Available') await client.remove(volumeRef(name));
}

/** Deletes the selected retained homes. One that is still bound to a claim makes the result incomplete. */
export async function purgeRetainedHomes(
  client: KubeClient,
  installation: string,
  before: Date,
  options: { except?: ReadonlySet<string>; only?: string } = {},
): Promise<PurgeResult> {
  const volumes = await client.list({
    apiVersion: 'v1',
    kind: 'PersistentVolume',
    labels: `${labels.installation}=${installation},${labels.home}=kept`,
  });
  const purged: string[] = [];
  let incomplete = false;
  for (const volume of volumes) {
    if (!isExpired(volume, before, options)) continue;
    if (volume.status?.phase === 'Bound') {
      incomplete = true;
      continue;
    }
    await discardHome(client, volume.metadata.name);
    purged.push(volume.metadata.labels?.[labels.workspace] ?? '');
  }
  return { purged, incomplete };
}

/** Whether a home or a snapshot was retained before `before`, and no workspace is about to restore it. */
export function isExpired(
  { metadata }: Pick<KubeObject, 'metadata'>,
  before: Date,
  options: { except?: ReadonlySet<string>; only?: string },
): boolean {
  const workspaceId = metadata.labels?.[labels.workspace] ?? '';
  if (options.only !== undefined && options.only !== workspaceId) return false;
  // Without a date it is never expired, as NaN compares false.
  const keptAt = Date.parse(metadata.annotations?.[annotations.keptAt] ?? '');
  return keptAt <= before.getTime() && !options.except?.has(workspaceId);
}
