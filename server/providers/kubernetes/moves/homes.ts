import type { PurgeResult } from '../../provider.ts';
import { type KubeClient, KubeError, type KubeObject, type KubeRef } from '../api/client.ts';
import type { Connection } from '../api/connections.ts';
import { annotations, labels, labelValue } from '../api/names.ts';

/** A home's volume, as the provider remembers it. */
export interface HomeVolume {
  name: string;
  size: string;
  storageClass: string;
}

/** Whose a home is; its volume says so, should all else be lost. */
export interface HomeOwner {
  installation: string;
  workspaceId: string;
  owner: string;
  name: string;
  /** Of a server with the smaller role, its label. */
  server?: string | undefined;
}

const volumeRef = (name: string): KubeRef => ({ apiVersion: 'v1', kind: 'PersistentVolume', name });

function readVolume(volume: KubeObject): HomeVolume {
  const spec = volume.spec as { capacity?: { storage?: string }; storageClassName?: string };
  return {
    name: volume.metadata.name,
    size: spec.capacity?.storage ?? '1Gi',
    storageClass: spec.storageClassName ?? '',
  };
}
const phaseOf = (object: KubeObject) => ((object.status ?? {}) as { phase?: string }).phase;

/** Null: there is none. */
async function patchVolume(client: KubeClient, name: string, patch: object): Promise<KubeObject | null> {
  try {
    return await client.patch(volumeRef(name), patch);
  } catch (error) {
    if (error instanceof KubeError && error.status === 404) return null;
    throw error;
  }
}

/** The volume that the claim of the home is bound to; null while it is bound to none. */
export function volumeOfClaim(claim: KubeObject | null): string | null {
  const { volumeName } = (claim?.spec ?? {}) as { volumeName?: string };
  return claim && phaseOf(claim) === 'Bound' && volumeName ? volumeName : null;
}

/** The labels of what a home is made of. */
export const homeLabels = (of: HomeOwner, use: 'used' | 'kept'): Record<string, string> => ({
  [labels.installation]: of.installation,
  [labels.workspace]: of.workspaceId,
  [labels.owner]: labelValue(of.owner),
  [labels.name]: labelValue(of.name),
  [labels.home]: use,
  ...(of.server && { [labels.server]: of.server }),
});

/** From now on the volume outlives its claim and its namespace, whoever deletes them. */
export async function protectHome(
  { client, grants }: Pick<Connection, 'client' | 'grants'>,
  name: string,
  of: HomeOwner,
): Promise<HomeVolume> {
  const server = (await grants.identity())?.label;
  const volume = await client.patch(volumeRef(name), {
    metadata: { labels: homeLabels({ ...of, server }, 'used'), annotations: { [annotations.keptAt]: null } },
    spec: { persistentVolumeReclaimPolicy: 'Retain' },
  });
  return readVolume(volume);
}

/**
 * Makes a volume that has no claim any more free for a new one of `namespace`. Null: it is gone, or its storage
 * is on its way out.
 */
export async function releaseHome(
  client: KubeClient,
  name: string,
  namespace: string,
): Promise<HomeVolume | 'in-use' | null> {
  const volume = await client.get(volumeRef(name));
  if (!volume || volume.metadata.deletionTimestamp || volume.metadata.labels?.[labels.home] === 'given-up')
    return null;
  const claim = (volume.spec as { claimRef?: { namespace: string; name: string; uid?: string } }).claimRef;
  const isBound = phaseOf(volume) === 'Bound';
  if (claim && isBound && claim.namespace !== namespace) return 'in-use';
  const isFree = claim?.namespace === namespace && claim.name === 'home' && claim.uid === undefined;
  if (claim && !isBound && !isFree)
    await client.patch(volumeRef(name), {
      spec: {
        persistentVolumeReclaimPolicy: 'Retain',
        // Only this claim may have it: between two writes nobody else's can be bound.
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
  return readVolume(volume);
}

/**
 * Its workspace goes, the home stays until `purgeKept` finds it too old. `of` null: whose it is stays as it is.
 * Returns its size; null: there was none.
 */
export async function retainHome(
  client: KubeClient,
  name: string,
  of: Omit<HomeOwner, 'owner' | 'name'> | null,
  now: Date,
): Promise<string | null> {
  const kept = await patchVolume(client, name, {
    metadata: {
      labels: {
        ...(of && { [labels.installation]: of.installation, [labels.workspace]: of.workspaceId }),
        [labels.home]: 'kept',
      },
      annotations: { [annotations.keptAt]: now.toISOString() },
    },
    spec: { persistentVolumeReclaimPolicy: 'Retain' },
  });
  return kept && readVolume(kept).size;
}

/** Its storage goes with its claim; when the claim is gone already, at once. */
export async function discardHome(client: KubeClient, name: string): Promise<void> {
  const volume = await patchVolume(client, name, {
    metadata: { labels: { [labels.home]: 'given-up' } },
    spec: { persistentVolumeReclaimPolicy: 'Delete' },
  });
  // Made free for a claim that never came, it is released by none either.
  if (volume && phaseOf(volume) === 'Available') await client.remove(volumeRef(name));
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
    if (phaseOf(volume) === 'Bound') {
      incomplete = true;
      continue;
    }
    await discardHome(client, volume.metadata.name);
    purged.push(volume.metadata.labels?.[labels.workspace] ?? '');
  }
  return { purged, incomplete };
}

/** Whether what is kept was kept since before `before`, and nobody is about to take it over. */
export function isExpired(
  { metadata }: KubeObject,
  before: Date,
  options: { except?: ReadonlySet<string>; only?: string },
): boolean {
  const workspaceId = metadata.labels?.[labels.workspace] ?? '';
  if (options.only !== undefined && options.only !== workspaceId) return false;
  // One without a date is nobody's to judge.
  const keptAt = Date.parse(metadata.annotations?.[annotations.keptAt] ?? '');
  return keptAt <= before.getTime() && !options.except?.has(workspaceId);
}
