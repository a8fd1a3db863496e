import type { BuilderAddress } from '@cde/api/clusters.ts';
import { type ErrorCode, Problem } from '@cde/api/problem.ts';
import type { KubernetesSection } from '@cde/api/template-file.ts';
import { eq, sql } from 'drizzle-orm';
import type { Database } from '../../database/pool.ts';
import { templateVersions } from '../../database/schema.ts';
import type { Actor } from '../../http/actor.ts';
import { KubeError } from '../../providers/kubernetes/api/client.ts';
import type { Connection, Connections } from '../../providers/kubernetes/api/connections.ts';
import { annotations } from '../../providers/kubernetes/api/names.ts';
import { builderNames } from '../../providers/kubernetes/objects/builder.ts';
import { findWorkspace, type WorkspaceRow } from '../../workspaces/store.ts';

/** Resolves the namespace of a workspace that the actor may connect to; throws a Problem if it is not available. */
export async function openNamespace(
  { database, connections }: { database: Database; connections: Connections },
  actor: Extract<Actor, { kind: 'user' }>,
  workspace: string,
  missing: ErrorCode = 'no-kubernetes-namespace',
) {
  const { row, owner } = await findWorkspace(database.db, actor, workspace, 'workspace:connect');
  if (row.provider !== 'kubernetes')
    throw new Problem(
      missing,
      `${row.name} has no ${missing === 'no-builder' ? 'image builder' : 'namespace on a cluster'}.`,
      {
        detail: `Its provider is ${row.provider}, which has none.`,
        hint: 'Use a template with the provider kubernetes.',
      },
    );
  if (!row.cluster || !row.namespace)
    throw new Problem('no-kubernetes-namespace', `${row.name} has no namespace on a cluster.`, {
      detail: 'It was never started.',
      actions: [{ kind: 'start-workspace', workspace: `${owner}/${row.name}` }],
    });
  const connection = connections.get(row.cluster);
  if (!connection || connection.state !== 'ready')
    throw new Problem('cluster-away', `The cluster ${row.cluster} is unreachable.`, {
      ...(connection?.reason && { detail: connection.reason }),
      retryAfter: 5,
    });
  try {
    await connection.grants.ensure(row.namespace);
  } catch (error) {
    throw namespaceProblem(error, row.cluster, row.namespace);
  }
  return { row, owner, connection, namespace: row.namespace };
}

/** Turns an API server error about a namespace into a Problem. */
export function namespaceProblem(error: unknown, cluster: string, namespace: string): unknown {
  if (!(error instanceof KubeError)) return error;
  if (error.status === 404)
    return new Problem('no-kubernetes-namespace', `The namespace ${namespace} does not exist.`, {
      hint: 'Start the workspace: it creates its namespace.',
    });
  if ([401, 403, 422].includes(error.status))
    return new Problem(
      'cluster-credentials-invalid',
      `The server has no permission for this on the cluster ${cluster}.`,
      {
        detail: error.message,
        hint: 'Ask an administrator to grant the missing permissions, which the checks of the cluster name.',
        actions: [{ kind: 'show-cluster', cluster }],
      },
    );
  return new Problem('cluster-away', `The cluster ${cluster} does not answer.`, {
    detail: error.message,
    retryAfter: 5,
  });
}

/**
 * The builder of a namespace, whether it runs or a start in progress is about to create it; null if the template has none.
 * `secret` is the name of the Secret with registry credentials.
 */
export async function findBuilder(
  { database, row, namespace }: { database: Database; row: WorkspaceRow; namespace: string },
  { view }: Connection,
): Promise<{ address: BuilderAddress; secret: string | null } | null> {
  const statefulSet = view.get('StatefulSet', namespace, builderNames.app);
  const secret = statefulSet
    ? (statefulSet.metadata.annotations?.[annotations.registrySecret] ?? null)
    : await templateRegistrySecret(database, row);
  if (secret === undefined) return null;
  const { pod, app: host, port } = builderNames;
  return { address: { pod, host, port, registrySecret: secret !== null }, secret };
}

/** The registry Secret that the template version names for the builder; undefined if it has no builder. */
async function templateRegistrySecret(
  { db }: Database,
  row: WorkspaceRow,
): Promise<string | null | undefined> {
  const [found] = await db
    .select({
      builder: sql<
        KubernetesSection['builder'] | null
      >`${templateVersions.content} -> 'kubernetes' -> 'builder'`,
    })
    .from(templateVersions)
    .where(eq(templateVersions.id, row.templateVersionId));
  const builder = found?.builder;
  if (!builder) return undefined;
  return (typeof builder === 'object' && builder.registrySecret?.split('/')[1]) || null;
}
