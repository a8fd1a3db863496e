import type { KubeClient, KubeObject, KubeRef } from './client.ts';
import type { Connection } from './connections.ts';
import { annotations, labels, labelValue } from './names.ts';

/** A home's volume, as the provider remembers it. */
export interface HomeVolume {
  name: string;
  size: string;
  storageClass: string;
}

const volumeRef = (name: string): KubeRef => ({ apiVersion: 'v1', kind: 'PersistentVolume', name });

function read(volume: KubeObject): HomeVolume {
  const spec = volume.spec as { capacity?: { storage?: string }; storageClassName?: string };
  return {
    name: volume.metadata.name,
    size: spec.capacity?.storage ?? '1Gi',
    storageClass: spec.storageClassName ?? '',
  };
}

/** The volume that the claim of the home is bound to; null while it is bound to none. */
export function volumeOfClaim(claim: KubeObject | null): string | null {
  const { volumeName } = (claim?.spec ?? {}) as { volumeName?: string };
  const { phase } = (claim?.status ?? {}) as { phase?: string };
  return phase === 'Bound' && volumeName ? volumeName : null;
}

/**
 * From now on the volume outlives its claim and its namespace, whoever deletes them. Its labels say whose it is,
 * should all else be lost.
 */
export async function protectHome(
  { client }: Pick<Connection, 'client'>,
  name: string,
  of: { installation: string; workspaceId: string; owner: string; name: string },
): Promise<HomeVolume> {
  const volume = await client.patch(volumeRef(name), {
    metadata: {
      labels: {
        [labels.installation]: of.installation,
        [labels.workspace]: of.workspaceId,
        [labels.owner]: labelValue(of.owner),
        [labels.name]: labelValue(of.name),
        [labels.home]: 'used',
      },
      annotations: { [annotations.keptAt]: null },
    },
    spec: { persistentVolumeReclaimPolicy: 'Retain' },
  });
  return read(volume);
}

/** Makes a volume that has no claim any more free for a new one of `namespace`. Null: it is gone. */
export async function freeHome(
  client: KubeClient,
  name: string,
  namespace: string,
): Promise<HomeVolume | 'in-use' | null> {
  const volume = await client.get(volumeRef(name));
  if (!volume || volume.metadata.deletionTimestamp) return null;
  const claim = (volume.spec as { claimRef?: { namespace: string; name: string; uid?: string } }).claimRef;
  const { phase } = (volume.status ?? {}) as { phase?: string };
  if (claim && phase === 'Bound' && claim.namespace !== namespace) return 'in-use';
  if (claim && phase !== 'Bound')
    await client.patch(volumeRef(name), {
      // Only this claim may have it: between two writes nobody else's can be bound.
      spec: {
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
  return read(volume);
}

/** Its workspace goes, the home stays until `purgeKept` finds it too old. False: there was none. */
export async function keepHome(client: KubeClient, name: string, now: Date): Promise<boolean> {
  if (!(await client.get(volumeRef(name)))) return false;
  await client.patch(volumeRef(name), {
    metadata: {
      labels: { [labels.home]: 'kept' },
      annotations: { [annotations.keptAt]: now.toISOString() },
    },
    spec: { persistentVolumeReclaimPolicy: 'Retain' },
  });
  return true;
}

/** Its storage goes with its claim; when the claim is gone already, at once. */
export async function giveUpHome(client: KubeClient, name: string): Promise<void> {
  if (!(await client.get(volumeRef(name)))) return;
  await client.patch(volumeRef(name), {
    metadata: { labels: { [labels.home]: 'given-up' } },
    spec: { persistentVolumeReclaimPolicy: 'Delete' },
  });
}

/** Gives up homes that were kept since before `before`; returns their workspace ids. */
export async function purgeKept(
  client: KubeClient,
  installation: string,
  before: Date,
  options: { claimed?: ReadonlySet<string>; only?: string } = {},
): Promise<string[]> {
  const volumes = await client.list({
    apiVersion: 'v1',
    kind: 'PersistentVolume',
    labels: `${labels.installation}=${installation},${labels.home}=kept`,
  });
  const purged: string[] = [];
  for (const { metadata } of volumes) {
    const workspaceId = metadata.labels?.[labels.workspace] ?? '';
    const keptAt = Date.parse(metadata.annotations?.[annotations.keptAt] ?? '');
    if (options.only !== undefined && options.only !== workspaceId) continue;
    // One without a date is nobody's to judge.
    if (!(keptAt <= before.getTime()) || options.claimed?.has(workspaceId)) continue;
    await giveUpHome(client, metadata.name);
    purged.push(workspaceId);
  }
  return purged;
}
