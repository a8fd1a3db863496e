import type { Orphan } from '@cde/api/clusters.ts';
import { and, eq, inArray, isNotNull, ne, or } from 'drizzle-orm';
import type { Database } from '../../database/pool.ts';
import { users, workspaces } from '../../database/schema.ts';
import type { Caller } from '../../http/actor.ts';
import { type SystemCaller, writeAudit } from '../../identity/audit/audit.ts';
import type { Logger } from '../../log.ts';
import type { OrphanReport } from '../../orphans/source.ts';
import { KubeError, type KubeObject } from '../../providers/kubernetes/api/client.ts';
import type { Connection, Connections } from '../../providers/kubernetes/api/connections.ts';
import { labels } from '../../providers/kubernetes/api/names.ts';
import { protectHome, volumeOfClaim } from '../../providers/kubernetes/steps/homes.ts';
import { enqueueReconcile } from '../../workspaces/queue.ts';
import { classifyOrphans, type OrphanFinding } from './classify.ts';

export interface OrphanDeps {
  database: Database;
  connections: Connections;
  /** The installation in our labels: objects of other installations on the same cluster are ignored. */
  installation: string;
  now: () => Date;
  log: Logger;
}

const isObservable = (connection: Connection) => connection.state === 'ready' && connection.view.synced;

/**
 * Finds our namespaces and volumes without a workspace, and workspaces without their namespace. Changes nothing, but
 * with `reconcile` it enqueues the workspaces that should run and have lost their namespace.
 */
export async function findOrphans(
  deps: OrphanDeps,
  { reconcile = false, cluster }: { reconcile?: boolean; cluster?: string | undefined } = {},
): Promise<OrphanReport> {
  const { findings, unseen } = await scan(deps, cluster);
  for (const { missingWorkspaceId } of reconcile ? findings : [])
    if (missingWorkspaceId) await enqueueReconcile(deps.database.db, missingWorkspaceId);
  return { items: findings.map(({ orphan }) => orphan), unseen };
}

async function scan(
  { database, connections, installation, now, log }: OrphanDeps,
  only: string | undefined,
): Promise<{ findings: OrphanFinding[]; unseen: string[] }> {
  const all = connections.all().filter(({ record }) => only === undefined || record.name === only);
  const unseen = new Set(all.filter((one) => !isObservable(one)).map(({ record }) => record.name));
  // Objects before rows: a workspace created in between has its row first.
  const clusters = [];
  for (const connection of all.filter(isObservable)) {
    const namespaces = connection.view.namespaces();
    try {
      const volumes = await connection.client.list({
        apiVersion: 'v1',
        kind: 'PersistentVolume',
        labels: `${labels.installation}=${installation},${labels.home}`,
      });
      clusters.push({ cluster: connection.record.name, namespaces, volumes });
    } catch (error) {
      if (!(error instanceof KubeError)) throw error;
      log.warn({ err: error, cluster: connection.record.name }, 'Volumes could not be listed');
      unseen.add(connection.record.name);
    }
  }
  const ids = new Set(
    clusters
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
  // A cluster that was removed, or that this replica has not loaded yet.
  for (const { cluster, status } of rows)
    if (
      cluster &&
      status !== 'deleted' &&
      (only === undefined || cluster === only) &&
      !all.some(({ record }) => record.name === cluster)
    )
      unseen.add(cluster);
  return { findings: classifyOrphans({ clusters, rows, now: now() }), unseen: [...unseen].sort() };
}

/**
 * Deletes orphaned namespaces; with `dryRun` it only lists them. The home of a deleted namespace is retained without a
 * date, so that it is never purged. Each namespace is read again before it is deleted.
 */
export async function cleanOrphans(
  deps: OrphanDeps,
  {
    dryRun,
    cluster,
    caller,
  }: { dryRun: boolean; cluster?: string | undefined; caller: Caller | SystemCaller },
): Promise<{ items: Orphan[]; done: boolean }> {
  const { findings } = await scan(deps, cluster);
  if (dryRun) return { items: findings.map(({ orphan }) => orphan), done: false };
  const items: Orphan[] = [];
  for (const one of findings) {
    if (one.missingWorkspaceId) await enqueueReconcile(deps.database.db, one.missingWorkspaceId);
    items.push(
      one.orphan.action === 'delete' ? (await cleanNamespace(deps, one.orphan, caller)).orphan : one.orphan,
    );
  }
  return { items, done: true };
}

/** Deletes an orphaned namespace and retains its homes; `homes` are the names of their volumes. */
export async function cleanNamespace(
  { database, connections, installation, log }: OrphanDeps,
  orphan: Orphan,
  caller: Caller | SystemCaller,
): Promise<{ orphan: Orphan; homes: string[] }> {
  const skipped = (reason: string) => ({
    orphan: { ...orphan, action: 'report' as const, reason },
    homes: [],
  });
  const connection = connections.get(orphan.cluster ?? '');
  if (!connection || !isObservable(connection))
    return skipped('Its cluster became unreachable. Nothing was changed.');
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
      return skipped('Its labels have changed since. Nothing was changed.');
    if (id && (await hasWorkspace(database, id)))
      return skipped('It has a workspace again. Nothing was changed.');
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
    log.info({ cluster: orphan.cluster, namespace: orphan.name, homes }, 'Deleted an orphaned namespace');
    const reason =
      homes.length === 0
        ? orphan.reason
        : `${orphan.reason} Its home is retained: the volume ${homes.join(', ')}.`;
    return { orphan: { ...orphan, reason }, homes };
  } catch (error) {
    if (!(error instanceof KubeError)) throw error;
    log.warn(
      { err: error, cluster: orphan.cluster, namespace: orphan.name },
      'An orphaned namespace could not be deleted',
    );
    return skipped(`It could not be deleted: ${error.message}`);
  }
}

async function hasWorkspace(database: Database, id: string): Promise<boolean> {
  const [row] = await database.db
    .select({ id: workspaces.id })
    .from(workspaces)
    .where(and(eq(workspaces.id, id), ne(workspaces.status, 'deleted')));
  return row !== undefined;
}

/** Makes the volumes of homes outlive their namespace. Rejects if the cluster does not confirm it. */
async function retainHomes(
  connection: Connection,
  namespaceName: string,
  namespace: KubeObject,
  installation: string,
): Promise<string[]> {
  const { client } = connection;
  const retained: string[] = [];
  const claims = await client.list({
    apiVersion: 'v1',
    kind: 'PersistentVolumeClaim',
    namespace: namespaceName,
  });
  for (const claim of claims) {
    if (claim.metadata.name !== 'home' && claim.metadata.labels?.[labels.role] !== 'home') continue;
    const volume = volumeOfClaim(claim);
    if (!volume) continue;
    const namespaceLabels = namespace.metadata.labels ?? {};
    const ref = { apiVersion: 'v1', kind: 'PersistentVolume', name: volume };
    const found = await client.get(ref);
    // The developer discarded this home with the workspace; that stays so.
    if (!found || found.metadata.labels?.[labels.home] === 'given-up') continue;
    await protectHome(connection, volume, {
      installation,
      workspaceId: namespaceLabels[labels.workspace] ?? '',
      owner: namespaceLabels[labels.owner] ?? '',
      name: namespaceLabels[labels.name] ?? '',
    });
    await client.patch(ref, { metadata: { labels: { [labels.home]: 'kept' } } });
    retained.push(volume);
  }
  return retained;
}
