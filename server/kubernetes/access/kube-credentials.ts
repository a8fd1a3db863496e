import { createKubeCredentials } from '@cde/api/clusters.ts';
import type { FastifyInstance } from 'fastify';
import type { Database } from '../../database/pool.ts';
import { serve } from '../../http/serve.ts';
import { writeAudit } from '../../identity/audit/audit.ts';
import type { Connections } from '../../providers/kubernetes/api/connections.ts';
import { findBuilder, namespaceProblem, openNamespace } from './namespaces.ts';

/** Lifetime of a kubectl token: how long a suspended user can keep using one. */
const tokenSeconds = 3600;

/** `POST /workspaces/:workspace/kube-credentials`: a token for the developer's service account. */
export function kubeCredentialRoutes(
  app: FastifyInstance,
  deps: { database: Database; connections: Connections },
): void {
  serve(app, createKubeCredentials, async (input) => {
    const { row, owner, connection, namespace } = await openNamespace(
      deps,
      input.actor,
      input.params.workspace,
    );
    const cluster = connection.record.name;
    const builder = await findBuilder({ database: deps.database, row, namespace }, connection);
    try {
      const { token, expiresAt } = await connection.client.token(namespace, 'developer', tokenSeconds);
      await writeAudit(deps.database.db, input, {
        action: 'workspace.kube-credentials',
        targetType: 'workspace',
        targetId: row.id,
        targetName: `${owner}/${row.name}`,
        after: { cluster, namespace, expiresAt: expiresAt.toISOString() },
      });
      return {
        cluster,
        server: connection.record.publicEndpoint ?? connection.client.server,
        internal:
          connection.record.publicEndpoint === null && connection.record.credentials.kind === 'in-cluster',
        certificateAuthority: connection.client.certificateAuthority,
        namespace,
        token,
        expiresAt: expiresAt.toISOString(),
        builder: builder?.address ?? null,
      };
    } catch (error) {
      throw namespaceProblem(error, cluster, namespace);
    }
  });
}
