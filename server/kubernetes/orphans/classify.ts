import type { Orphan } from '@cde/api/clusters.ts';
import type { WorkspaceStatus } from '@cde/api/workspaces.ts';
import type { KubeObject } from '../../providers/kubernetes/api/client.ts';
import { labels } from '../../providers/kubernetes/api/names.ts';

/** A namespace younger than this may be one that is being made, or that a test or an admin has just brought. */
const minAgeMs = 3600_000;
/** What the watches and the database say of the same workspace may differ for so long. */
const settleMs = 5 * 60_000;

/** A workspace as the database has it. */
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
/** What is on one cluster that is seen whole. */
export interface ClusterObjects {
  cluster: string;
  namespaces: KubeObject[];
  /** Of homes. */
  volumes: KubeObject[];
}
export interface OrphanFinding {
  orphan: Orphan;
  /** A workspace that should run and has nothing to run in: to be reconciled. */
  missingWorkspaceId?: string;
}

/** Compares what is with what should be. Clusters that are not in `seen` are not judged. */
export function classifyOrphans({
  seen,
  rows,
  now,
}: {
  seen: ClusterObjects[];
  rows: WorkspaceRecord[];
  now: Date;
}): OrphanFinding[] {
  const byId = new Map(rows.map((row) => [row.id, row]));
  const age = (moment: string | Date | null | undefined) =>
    moment ? now.getTime() - new Date(moment).getTime() : Number.POSITIVE_INFINITY;
  const findings: OrphanFinding[] = [];

  for (const { cluster, namespaces, volumes } of seen) {
    const add = (orphan: Omit<Orphan, 'cluster'>, missingWorkspaceId?: string) =>
      findings.push({
        orphan: { cluster, ...orphan },
        ...(missingWorkspaceId && { missingWorkspaceId: missingWorkspaceId }),
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
          reason: `It is being deleted and does not end${deletionBlocker(namespace)}.`,
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
              ? `Its namespace ${row.namespace} vanished; it is started again.`
              : `Its namespace ${row.namespace} vanished; its next start makes it again.`,
          action: 'report',
        },
        row.status === 'running' ? row.id : undefined,
      );
    }

    for (const volume of volumes) {
      const id = volume.metadata.labels?.[labels.workspace] ?? '';
      const row = byId.get(id);
      const { phase } = (volume.status ?? {}) as { phase?: string };
      // In use: then it is its namespace that is judged.
      if (phase === 'Bound' || volume.metadata.deletionTimestamp) continue;
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
        reason: `The home of ${owner}/${workspace}, of which the server ${row ? 'keeps none' : 'knows nothing'}.`,
        action: 'keep',
      });
    }
  }
  return findings;
}

/** Why a namespace of ours is nobody's; null: it is somebody's. */
function orphanedNamespaceReason(
  namespace: KubeObject,
  byId: Map<string, WorkspaceRecord>,
  cluster: string,
  age: (moment: Date | null) => number,
): Pick<Orphan, 'reason' | 'action'> | null {
  const id = namespace.metadata.labels?.[labels.workspace];
  const row = id === undefined ? undefined : byId.get(id);
  if (!row) return { reason: 'The server knows no workspace that it is of.', action: 'delete' };
  if (row.status === 'deleted')
    return age(row.deletedAt) < settleMs
      ? null
      : { reason: `Its workspace ${row.owner}/${row.name} was deleted.`, action: 'delete' };
  // Until its first place is written down, it may be anywhere.
  if (!row.cluster || !row.namespace) return null;
  if (row.cluster === cluster && row.namespace === namespace.metadata.name) return null;
  return {
    reason: `Its workspace ${row.owner}/${row.name} lies in ${row.namespace} on ${row.cluster} now.`,
    action: 'report',
  };
}

/** What keeps a namespace from ending, in Kubernetes' words. */
function deletionBlocker(namespace: KubeObject): string {
  const { conditions = [] } = (namespace.status ?? {}) as {
    conditions?: { type: string; status: string; message?: string }[];
  };
  const of = (type: string) => conditions.find((one) => one.type === type && one.status === 'True')?.message;
  const why = of('NamespaceFinalizersRemaining') ?? of('NamespaceContentRemaining');
  return why ? `: ${why.replace(/\.$/, '')}` : '';
}
