import type { Orphan } from '@cde/api/clusters.ts';
import { and, eq, inArray, isNotNull, ne, or } from 'drizzle-orm';
import type { Database } from '../../database/pool.ts';
import { users, workspaces } from '../../database/schema.ts';
import type { Caller } from '../../http/actor.ts';
import { type SystemCaller, writeAudit } from '../../identity/audit.ts';
import type { Logger } from '../../log.ts';
import { KubeError, type KubeObject } from '../../providers/kubernetes/api/client.ts';
import type { Connection, Connections } from '../../providers/kubernetes/api/connections.ts';
import { labels } from '../../providers/kubernetes/api/names.ts';
import { protectHome, volumeOfClaim } from '../../providers/kubernetes/moves/homes.ts';
import { enqueueReconcile } from '../../workspaces/queue.ts';
import { classifyOrphans, type OrphanFinding } from './classify.ts';

export interface OrphanDeps {
  database: Database;
  connections: Connections;
  /** What our labels say: other installations' objects on the same cluster are none of our business. */
  installation: string;
  now: () => Date;
  log: Logger;
}

export interface OrphanReport {
  items: Orphan[];
  /** Clusters that are away, or not yet seen whole: nothing on them is judged. */
  unseen: string[];
}

const isObservable = (connection: Connection) => connection.state === 'ready' && connection.view.synced;

/**
 * Namespaces and volumes of ours without a workspace, workspaces without their namespace. Changes nothing; with
 * `reconcile`, workspaces that should run and have lost their namespace are looked at by the reconciler; with
 * `cluster`, no other is looked at.
 */
export async function findOrphans(
  deps: OrphanDeps,
  { reconcile = false, cluster }: { reconcile?: boolean; cluster?: string | undefined } = {},
): Promise<OrphanReport> {
  const { judged, unseen } = await scan(deps, cluster);
  for (const { missingWorkspaceId: lost } of reconcile ? judged : [])
    if (lost) await enqueueReconcile(deps.database.db, lost);
  return { items: judged.map(({ orphan }) => orphan), unseen };
}

async function scan(
  { database, connections, installation, now, log }: OrphanDeps,
  only: string | undefined,
): Promise<{ judged: OrphanFinding[]; unseen: string[] }> {
  const all = connections.all().filter(({ record }) => only === undefined || record.name === only);
  const unseen = new Set(all.filter((one) => !isObservable(one)).map(({ record }) => record.name));
  // Objects before rows: a workspace that is made meanwhile has its row first.
  const seen = [];
  for (const connection of all.filter(isObservable)) {
    const namespaces = connection.view.namespaces();
    try {
      const volumes = await connection.client.list({
        apiVersion: 'v1',
        kind: 'PersistentVolume',
        labels: `${labels.installation}=${installation},${labels.home}`,
      });
      seen.push({ cluster: connection.record.name, namespaces, volumes });
    } catch (error) {
      if (!(error instanceof KubeError)) throw error;
      log.warn({ err: error, cluster: connection.record.name }, 'volumes could not be listed');
      unseen.add(connection.record.name);
    }
  }
  const ids = new Set(
    seen
      .flatMap(({ namespaces, volumes }) => [...namespaces, ...volumes])
      .map(({ metadata }) => metadata.labels?.[labels.workspace] ?? '')
      .filter((id) => /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(id)),
  );
  const rows = await database.db
    .select({
      id: workspaces.id,
      owner: users.username,
      name: workspaces.name,
      status: workspaces.status,
      cluster: workspaces.cluster,
      namespace: workspaces.namespace,
      updatedAt: workspaces.updatedAt,
      deletedAt: workspaces.deletedAt,
      homeKeptUntil: workspaces.homeKeptUntil,
    })
    .from(workspaces)
    .innerJoin(users, eq(users.id, workspaces.ownerId))
    .where(
      or(
        and(
          only === undefined ? isNotNull(workspaces.cluster) : eq(workspaces.cluster, only),
          ne(workspaces.status, 'deleted'),
        ),
        ids.size > 0 ? inArray(workspaces.id, [...ids]) : undefined,
      ),
    );
  // A cluster that was forgotten, or that this replica has not heard of yet.
  for (const { cluster, status } of rows)
    if (
      cluster &&
      status !== 'deleted' &&
      (only === undefined || cluster === only) &&
      !all.some(({ record }) => record.name === cluster)
    )
      unseen.add(cluster);
  return { judged: classifyOrphans({ seen, rows, now: now() }), unseen: [...unseen].sort() };
}

/**
 * Does what `findOrphans` proposes; with `dryRun` only says it. The home in a namespace that goes is kept, without
 * a date: nobody purges it. Each namespace is looked at again before it is deleted.
 */
export async function cleanOrphans(
  deps: OrphanDeps,
  {
    dryRun,
    cluster,
    caller,
  }: { dryRun: boolean; cluster?: string | undefined; caller: Caller | SystemCaller },
): Promise<{ items: Orphan[]; done: boolean }> {
  const { judged } = await scan(deps, cluster);
  if (dryRun) return { items: judged.map(({ orphan }) => orphan), done: false };
  const items: Orphan[] = [];
  for (const one of judged) {
    if (one.missingWorkspaceId) await enqueueReconcile(deps.database.db, one.missingWorkspaceId);
    items.push(
      one.orphan.action === 'delete' ? (await cleanNamespace(deps, one.orphan, caller)).orphan : one.orphan,
    );
  }
  return { items, done: true };
}

/** Deletes the namespace of an orphan, and keeps its homes: `homes` are their volumes. */
export async function cleanNamespace(
  { database, connections, installation, log }: OrphanDeps,
  orphan: Orphan,
  caller: Caller | SystemCaller,
): Promise<{ orphan: Orphan; homes: string[] }> {
  const skipped = (reason: string) => ({
    orphan: { ...orphan, action: 'report' as const, reason },
    homes: [],
  });
  const connection = connections.get(orphan.cluster);
  if (!connection || !isObservable(connection))
    return skipped('Its cluster went away meanwhile; nothing was done.');
  const { client } = connection;
  try {
    const ref = { apiVersion: 'v1', kind: 'Namespace', name: orphan.name };
    const namespace = await client.get(ref);
    if (!namespace || namespace.metadata.deletionTimestamp) return { orphan, homes: [] };
    const id = namespace.metadata.labels?.[labels.workspace];
    if (
      namespace.metadata.labels?.[labels.installation] !== installation ||
      (id ?? null) !== orphan.workspaceId
    )
      return skipped('Its labels were changed meanwhile; nothing was done.');
    if (id && (await hasWorkspace(database, id)))
      return skipped('It has a workspace again; nothing was done.');
    await connection.grants.ensure(orphan.name);
    const homes = await retainHomes(connection, orphan.name, namespace, installation);
    const { uid } = namespace.metadata;
    await client.remove(ref, uid ? { uid } : {});
    await writeAudit(database.db, caller, {
      action: 'cluster.clean-orphan',
      targetType: 'cluster',
      targetId: connection.record.id,
      targetName: `${orphan.cluster}/${orphan.name}`,
      before: { namespace: orphan.name, workspaceId: orphan.workspaceId, reason: orphan.reason },
      after: { homesKept: homes },
    });
    log.info({ cluster: orphan.cluster, namespace: orphan.name, homes }, 'an orphaned namespace was deleted');
    const reason =
      homes.length === 0
        ? orphan.reason
        : `${orphan.reason} Its home is kept: the volume ${homes.join(', ')}.`;
    return { orphan: { ...orphan, reason }, homes };
  } catch (error) {
    if (!(error instanceof KubeError)) throw error;
    log.warn(
      { err: error, cluster: orphan.cluster, namespace: orphan.name },
      'an orphan could not be cleaned',
    );
    return skipped(`It could not be cleaned: ${error.message}`);
  }
}

async function hasWorkspace(database: Database, id: string): Promise<boolean> {
  const [row] = await database.db
    .select({ id: workspaces.id })
    .from(workspaces)
    .where(and(eq(workspaces.id, id), ne(workspaces.status, 'deleted')));
  return row !== undefined;
}

/** Sets the volumes of homes in a namespace to outlive it. Rejects when that cannot be made sure. */
async function retainHomes(
  connection: Connection,
  namespaceName: string,
  namespace: KubeObject,
  installation: string,
): Promise<string[]> {
  const { client } = connection;
  const kept: string[] = [];
  const claims = await client.list({
    apiVersion: 'v1',
    kind: 'PersistentVolumeClaim',
    namespace: namespaceName,
  });
  for (const claim of claims) {
    if (claim.metadata.name !== 'home' && claim.metadata.labels?.[labels.role] !== 'home') continue;
    const volume = volumeOfClaim(claim);
    if (!volume) continue;
    const own = namespace.metadata.labels ?? {};
    const ref = { apiVersion: 'v1', kind: 'PersistentVolume', name: volume };
    const found = await client.get(ref);
    // Its developer gave it up with the workspace: that is not to be undone.
    if (!found || found.metadata.labels?.[labels.home] === 'given-up') continue;
    await protectHome(connection, volume, {
      installation,
      workspaceId: own[labels.workspace] ?? '',
      owner: own[labels.owner] ?? '',
      name: own[labels.name] ?? '',
    });
    await client.patch(ref, { metadata: { labels: { [labels.home]: 'kept' } } });
    kept.push(volume);
  }
  return kept;
}
