import type { AdoptedHome, Orphan } from '@cde/api/clusters.ts';
import { Problem } from '@cde/api/problem.ts';
import { and, desc, eq, isNotNull, sql } from 'drizzle-orm';
import { v7 } from 'uuid';
import type { Queryable } from '../../database/pool.ts';
import { templates, templateVersions, users, workspaces } from '../../database/schema.ts';
import type { Caller } from '../../http/actor.ts';
import { writeAudit } from '../../identity/audit/audit.ts';
import { KubeError } from '../../providers/kubernetes/api/client.ts';
import type { Connection } from '../../providers/kubernetes/api/connections.ts';
import type { Kube } from '../../providers/kubernetes/api/models.ts';
import { annotations, labels } from '../../providers/kubernetes/api/names.ts';
import { writeRemovedState } from '../../providers/kubernetes/steps/state.ts';
import { cleanNamespace, findOrphans, type OrphanDeps } from './orphans.ts';

/** How long an adopted home is retained, even if homes of deleted workspaces are not retained at all. */
const minRetentionMs = 7 * 24 * 3600_000;
const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

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
    await userOf(deps.database.db, owner ?? object?.metadata.labels?.[labels.owner] ?? '');
    await latestKubernetesTemplate(deps.database.db);
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
  const keptUntil = new Date(now().getTime() + Math.max(homeGraceMs, minRetentionMs));
  return database.db.transaction(async (tx) => {
    const user = await userOf(tx, username);
    const before = own[labels.workspace] ?? '';
    const id = uuid.test(before) && !(await workspaceExists(tx, before)) ? before : v7();
    await tx.insert(workspaces).values({
      id,
      ownerId: user.id,
      name,
      ...(await latestKubernetesTemplate(tx)),
      provider: 'kubernetes',
      desired: 'deleted',
      status: 'deleted',
      providerState: writeRemovedState({
        cluster: record.name,
        namespace: claimRef?.namespace ?? volume.metadata.name,
        homeVolume: volume.metadata.name,
        homeDisposition: 'keep',
        homeRetained: true,
        ...(capacity?.storage && { homeSize: capacity.storage }),
      }),
      cluster: record.name,
      createdAt: now(),
      updatedAt: now(),
      deletedAt: now(),
      homeKeptUntil: keptUntil,
    });
    await writeAudit(tx, caller, {
      action: 'home.adopt',
      targetType: 'workspace',
      targetId: id,
      targetName: `${user.username}/${name}`,
      before: { owner: own[labels.owner] ?? null, workspaceId: before || null },
      after: { cluster: record.name, volume: volume.metadata.name },
    });
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
          annotations: { [annotations.keptAt]: new Date(keptUntil.getTime() - homeGraceMs).toISOString() },
        },
        spec: { persistentVolumeReclaimPolicy: 'Retain' },
      },
    );
    return {
      id,
      owner: user.username,
      workspace: name,
      cluster: record.name,
      volume: volume.metadata.name,
      size: capacity?.storage ?? null,
      keptUntil: keptUntil.toISOString(),
    };
  });
}

async function userOf(tx: Queryable, username: string): Promise<{ id: string; username: string }> {
  const [user] = await tx
    .select({ id: users.id, username: users.username })
    .from(users)
    .where(eq(users.username, username));
  if (user) return user;
  throw new Problem('user-not-found', `There is no user ${username} to own the home.`, {
    hint: 'Create the user first, or name another: --owner NAME',
  });
}

async function workspaceExists(tx: Queryable, id: string): Promise<boolean> {
  const [row] = await tx.select({ id: workspaces.id }).from(workspaces).where(eq(workspaces.id, id));
  return row !== undefined;
}

/** Every workspace needs a template. The original one is unknown; the restore chooses another. */
async function latestKubernetesTemplate(
  tx: Queryable,
): Promise<{ templateId: string; templateVersionId: string }> {
  const [found] = await tx
    .select({ templateId: templates.id, templateVersionId: templateVersions.id })
    .from(templates)
    .innerJoin(templateVersions, eq(templateVersions.id, templates.activeVersionId))
    .where(
      and(
        isNotNull(templates.activeVersionId),
        sql`${templateVersions.content} ->> 'provider' = 'kubernetes'`,
      ),
    )
    .orderBy(desc(templates.updatedAt))
    .limit(1);
  if (!found)
    throw new Problem('template-not-found', 'There is no Kubernetes template yet.', {
      hint: 'Publish one first: a home is restored into a workspace, which needs a template.',
      actions: [{ kind: 'publish-template' }],
    });
  return found;
}
