import type { Orphan } from '@cde/api/clusters.ts';
import type { WorkspaceStatus } from '@cde/api/workspaces.ts';
import { minAgeMs, settleMs } from '../../orphans/age.ts';
import type { Kube } from '../../providers/kubernetes/api/models.ts';
import { labels } from '../../providers/kubernetes/api/names.ts';
import { describeStuckNamespace } from '../../providers/kubernetes/reasons/namespaces.ts';

/** A workspace as it is in the database. */
export interface WorkspaceRecord {
  id: string;
  owner: string;
  name: string;
  status: WorkspaceStatus;
  cluster: string | null;
  namespace: string | null;
  updatedAt: Date;
  deletedAt: Date | null;
  homeKeptUntil: Date | null;
}
/** The objects of one cluster whose watches are synced. */
export interface ClusterObjects {
  cluster: string;
  namespaces: Kube<'Namespace'>[];
  /** The volumes of homes. */
  volumes: Kube<'PersistentVolume'>[];
}
export interface OrphanFinding {
  orphan: Orphan;
  /** A workspace that should run but has no namespace: it has to be reconciled. */
  missingWorkspaceId?: string;
}

/** Compares the objects on the clusters with the workspaces in the database. Other clusters are ignored. */
export function classifyOrphans({
  clusters,
  rows,
  now,
}: {
  clusters: ClusterObjects[];
  rows: WorkspaceRecord[];
  now: Date;
}): OrphanFinding[] {
  const byId = new Map(rows.map((row) => [row.id, row]));
  const age = (moment: string | Date | null | undefined) =>
    moment ? now.getTime() - new Date(moment).getTime() : Number.POSITIVE_INFINITY;
  const findings: OrphanFinding[] = [];

  for (const { cluster, namespaces, volumes } of clusters) {
    const add = (orphan: Omit<Orphan, 'cluster' | 'provider'>, missingWorkspaceId?: string) =>
      findings.push({
        orphan: { provider: 'kubernetes', cluster, ...orphan },
        ...(missingWorkspaceId && { missingWorkspaceId }),
      });

    for (const namespace of namespaces) {
      const reason = orphanedNamespaceReason(namespace, byId, cluster, age);
      const { name, creationTimestamp, deletionTimestamp } = namespace.metadata;
      if (!reason || age(creationTimestamp) < minAgeMs) continue;
      const base = {
        kind: 'namespace' as const,
        name,
        workspaceId: namespace.metadata.labels?.[labels.workspace] ?? null,
        since: deletionTimestamp ?? creationTimestamp ?? null,
      };
      if (!deletionTimestamp) add({ ...base, ...reason });
      else if (age(deletionTimestamp) >= minAgeMs)
        add({
          ...base,
          reason: `Its deletion does not finish${describeStuckNamespace(namespace)}.`,
          action: 'report',
        });
    }

    for (const row of rows) {
      if (row.cluster !== cluster || !row.namespace || age(row.updatedAt) < settleMs) continue;
      if (!['running', 'stopped', 'failed'].includes(row.status)) continue;
      if (namespaces.some(({ metadata }) => metadata.name === row.namespace)) continue;
      add(
        {
          kind: 'workspace',
          name: `${row.owner}/${row.name}`,
          workspaceId: row.id,
          since: row.updatedAt.toISOString(),
          reason:
            row.status === 'running'
              ? `Its namespace ${row.namespace} is gone. The workspace is started again.`
              : `Its namespace ${row.namespace} is gone. The next start creates it again.`,
          action: 'report',
        },
        row.status === 'running' ? row.id : undefined,
      );
    }

    for (const volume of volumes) {
      const id = volume.metadata.labels?.[labels.workspace] ?? '';
      const row = byId.get(id);
      // A bound volume belongs to a namespace, which is checked above.
      if (volume.status?.phase === 'Bound' || volume.metadata.deletionTimestamp) continue;
      if (row && (row.status !== 'deleted' || row.homeKeptUntil)) continue;
      if (
        volume.metadata.labels?.[labels.home] === 'given-up' ||
        age(volume.metadata.creationTimestamp) < minAgeMs
      )
        continue;
      if (row && age(row.deletedAt) < settleMs) continue;
      const owner = volume.metadata.labels?.[labels.owner] ?? '';
      const workspace = volume.metadata.labels?.[labels.name] ?? '';
      add({
        kind: 'home',
        name: volume.metadata.name,
        workspaceId: id || null,
        since: volume.metadata.creationTimestamp ?? null,
        reason: row
          ? `The home of ${owner}/${workspace}, which the server no longer keeps.`
          : `The home of ${owner}/${workspace}, which is not in the database.`,
        action: 'keep',
      });
    }
  }
  return findings;
}

/** Why a namespace is an orphan; null if it belongs to a workspace. */
function orphanedNamespaceReason(
  namespace: Kube<'Namespace'>,
  byId: Map<string, WorkspaceRecord>,
  cluster: string,
  age: (moment: Date | null) => number,
): Pick<Orphan, 'reason' | 'action'> | null {
  const id = namespace.metadata.labels?.[labels.workspace];
  const row = id === undefined ? undefined : byId.get(id);
  if (!row) return { reason: 'Its workspace is not in the database.', action: 'delete' };
  if (row.status === 'deleted')
    return age(row.deletedAt) < settleMs
      ? null
      : { reason: `Its workspace ${row.owner}/${row.name} was deleted.`, action: 'delete' };
  // Before its first location is stored, it can be in any namespace.
  if (!row.cluster || !row.namespace) return null;
  if (row.cluster === cluster && row.namespace === namespace.metadata.name) return null;
  return {
    reason: `Its workspace ${row.owner}/${row.name} is now in ${row.namespace} on ${row.cluster}.`,
    action: 'report',
  };
}
