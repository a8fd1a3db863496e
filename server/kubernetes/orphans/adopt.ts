import type { AdoptedHome, Orphan } from '@cde/api/clusters.ts';
import { Problem } from '@cde/api/problem.ts';
import type { Caller } from '../../http/actor.ts';
import { findOwner, insertAdoptedHome, latestTemplate, retentionOf } from '../../orphans/adopted-home.ts';
import { KubeError } from '../../providers/kubernetes/api/client.ts';
import type { Connection } from '../../providers/kubernetes/api/connections.ts';
import type { Kube } from '../../providers/kubernetes/api/models.ts';
import { annotations, labels } from '../../providers/kubernetes/api/names.ts';
import { writeRemovedState } from '../../providers/kubernetes/steps/state.ts';
import { cleanNamespace, findOrphans, type OrphanDeps } from './orphans.ts';

/**
 * Makes an orphaned home a retained home of a user, who can then restore it into a new workspace as after a deletion. An
 * orphaned namespace is deleted first, which retains its home.
 * @param name of the namespace or volume, as the list of orphans has it
 * @throws orphan-not-found, user-not-found, template-not-found, cluster-away
 */
export async function adoptOrphan(
  deps: OrphanDeps & { homeGraceMs: number },
  { cluster, name, owner }: { cluster: string; name: string; owner?: string | undefined },
  caller: Caller,
): Promise<AdoptedHome[]> {
  const connection = deps.connections.get(cluster);
  if (!connection)
    throw new Problem('cluster-not-found', `There is no cluster ${cluster}.`, {
      actions: [{ kind: 'list-clusters' }],
    });
  const { items, unseen } = await findOrphans(deps, { cluster });
  if (unseen.includes(cluster))
    throw new Problem('cluster-away', `The cluster ${cluster} is unreachable.`, {
      retryAfter: 10,
    });
  const orphan = items.find((one) => one.name === name && one.kind !== 'workspace');
  if (!orphan)
    throw new Problem('orphan-not-found', `There is no orphan ${name} on the cluster ${cluster}.`, {
      detail: 'It has a workspace, was already adopted, or is less than an hour old.',
      actions: [{ kind: 'list-orphans' }],
    });
  try {
    // Check that the home can have an owner before anything is deleted.
    const ref =
      orphan.kind === 'namespace'
        ? { apiVersion: 'v1', kind: 'Namespace', name }
        : { apiVersion: 'v1', kind: 'PersistentVolume', name };
    const object = await connection.client.get(ref);
    await findOwner(deps.database.db, owner ?? object?.metadata.labels?.[labels.owner] ?? '');
    await latestTemplate(deps.database.db, 'kubernetes');
    const volumes = await volumesOf(deps, connection, orphan, caller);
    if (volumes.length === 0)
      throw new Problem('orphan-not-found', `The namespace ${name} has no home to adopt.`, {
        hint: 'You can delete the namespace.',
        actions: [{ kind: 'clean-orphans' }],
      });
    const adopted: AdoptedHome[] = [];
    for (const volume of volumes) adopted.push(await adoptVolume(deps, connection, volume, owner, caller));
    return adopted;
  } catch (error) {
    if (!(error instanceof KubeError)) throw error;
    throw new Problem('cluster-away', `The home could not be adopted on the cluster ${cluster}.`, {
      detail: error.message,
      actions: [{ kind: 'show-cluster', cluster }],
      retryAfter: 10,
    });
  }
}

async function volumesOf(
  deps: OrphanDeps,
  connection: Connection,
  orphan: Orphan,
  caller: Caller,
): Promise<Kube<'PersistentVolume'>[]> {
  const { client } = connection;
  let names = [orphan.name];
  if (orphan.kind === 'namespace') {
    const { homes } = await cleanNamespace(deps, orphan, caller);
    names = homes;
  }
  const found = await Promise.all(
    names.map((name) => client.get({ apiVersion: 'v1', kind: 'PersistentVolume', name })),
  );
  return found.filter((volume) => volume !== null);
}

async function adoptVolume(
  { database, now, homeGraceMs, installation }: OrphanDeps & { homeGraceMs: number },
  { client, record, grants }: Connection,
  volume: Kube<'PersistentVolume'>,
  given: string | undefined,
  caller: Caller,
): Promise<AdoptedHome> {
  const own = volume.metadata.labels ?? {};
  const username = given ?? own[labels.owner] ?? '';
  const name = own[labels.name] ?? volume.metadata.name;
  const server = (await grants.identity())?.label;
  const { capacity, claimRef } = volume.spec ?? {};
  const { keptUntil, retainedAt } = retentionOf(now(), homeGraceMs);
  return database.db.transaction(async (tx) => {
    const { id, owner } = await insertAdoptedHome(
      tx,
      caller,
      { keptUntil, now: now() },
      {
        provider: 'kubernetes',
        owner: username,
        name,
        formerOwner: own[labels.owner] ?? null,
        formerWorkspaceId: own[labels.workspace] || null,
        volume: volume.metadata.name,
        cluster: record.name,
        state: writeRemovedState({
          cluster: record.name,
          namespace: claimRef?.namespace ?? volume.metadata.name,
          homeVolume: volume.metadata.name,
          homeDisposition: 'keep',
          homeRetained: true,
          ...(capacity?.storage && { homeSize: capacity.storage }),
        }),
      },
    );
    // Last, so that nothing is stored if the cluster rejects it.
    await client.patch(
      { apiVersion: 'v1', kind: 'PersistentVolume', name: volume.metadata.name },
      {
        metadata: {
          labels: {
            [labels.installation]: installation,
            [labels.workspace]: id,
            [labels.home]: 'kept',
            ...(server && { [labels.server]: server }),
          },
          // The home is purged when the grace period after this moment is over.
          annotations: { [annotations.keptAt]: retainedAt.toISOString() },
        },
        spec: { persistentVolumeReclaimPolicy: 'Retain' },
      },
    );
    return {
      id,
      owner,
      workspace: name,
      provider: 'kubernetes',
      cluster: record.name,
      volume: volume.metadata.name,
      size: capacity?.storage ?? null,
      keptUntil: keptUntil.toISOString(),
    };
  });
}
