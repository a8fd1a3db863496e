import { createKubeCredentials } from '@cde/api/clusters.ts';
import type { FastifyInstance } from 'fastify';
import type { Database } from '../database/pool.ts';
import { Problem } from '../errors.ts';
import { serve } from '../http/serve.ts';
import { writeAudit } from '../identity/audit.ts';
import { KubeError } from '../providers/kubernetes/client.ts';
import type { Connections } from '../providers/kubernetes/connections.ts';
import { findWorkspace } from '../workspaces/store.ts';

/** How long a token for kubectl lives, in seconds: a user who is suspended keeps one no longer. */
const tokenSeconds = 3600;

/** `POST /workspaces/:workspace/kube-credentials`: a token of the developer's own service account. */
export function kubeCredentialRoutes(
  app: FastifyInstance,
  { database, connections }: { database: Database; connections: Connections },
): void {
  serve(app, createKubeCredentials, async (input) => {
    const { row, owner } = await findWorkspace(
      database.db,
      input.actor,
      input.params.workspace,
      'workspace:connect',
    );
    if (!row.cluster || !row.namespace)
      throw new Problem('no-kubernetes-namespace', `${row.name} has no namespace on a cluster.`, {
        detail:
          row.provider === 'kubernetes'
            ? 'It was never started.'
            : `Its provider is ${row.provider}, which makes none.`,
        hint:
          row.provider === 'kubernetes'
            ? 'Start it: cde start'
            : 'Use a template of the provider kubernetes.',
      });
    const connection = connections.get(row.cluster);
    if (!connection || connection.state !== 'ready')
      throw new Problem('cluster-away', `The cluster ${row.cluster} does not answer at the moment.`, {
        ...(connection?.reason && { detail: connection.reason }),
        retryAfter: 5,
      });
    try {
      const { token, expiresAt } = await connection.client.token(row.namespace, 'developer', tokenSeconds);
      await writeAudit(database.db, input, {
        action: 'workspace.kube-credentials',
        targetType: 'workspace',
        targetId: row.id,
        targetName: `${owner}/${row.name}`,
        after: { cluster: row.cluster, namespace: row.namespace, expiresAt: expiresAt.toISOString() },
      });
      return {
        cluster: row.cluster,
        server: connection.record.publicEndpoint ?? connection.client.server,
        certificateAuthority: connection.client.certificateAuthority,
        namespace: row.namespace,
        token,
        expiresAt: expiresAt.toISOString(),
        builder: null,
      };
    } catch (error) {
      if (!(error instanceof KubeError)) throw error;
      if (error.status === 404)
        throw new Problem('no-kubernetes-namespace', `The namespace ${row.namespace} is not there.`, {
          hint: 'Start the workspace: cde start',
        });
      throw new Problem('cluster-away', `The cluster ${row.cluster} gives no credentials.`, {
        detail: error.message,
        retryAfter: 5,
      });
    }
  });
}
