import { createBuilderCredentials, getBuilder } from '@cde/api/clusters.ts';
import { Problem } from '@cde/api/problem.ts';
import type { FastifyInstance } from 'fastify';
import type { Database } from '../../database/pool.ts';
import type { Actor } from '../../http/actor.ts';
import { serve } from '../../http/serve.ts';
import { writeAudit } from '../../identity/audit/audit.ts';
import { KubeError } from '../../providers/kubernetes/api/client.ts';
import type { Connection, Connections } from '../../providers/kubernetes/api/connections.ts';
import { containerStatus, hasCondition, type Kube } from '../../providers/kubernetes/api/models.ts';
import { builderNames, registryAuths } from '../../providers/kubernetes/objects/builder.ts';
import { explain } from '../../providers/kubernetes/reasons/explain.ts';
import { findBuilder, namespaceProblem, openNamespace } from '../access/namespaces.ts';

/** `/workspaces/:workspace/builder`: the address, readiness and registry credentials of the image builder. */
export function builderRoutes(
  app: FastifyInstance,
  deps: { database: Database; connections: Connections },
): void {
  async function open(actor: Extract<Actor, { kind: 'user' }>, workspace: string) {
    const opened = await openNamespace(deps, actor, workspace, 'no-builder');
    const builder = await findBuilder({ database: deps.database, ...opened }, opened.connection);
    if (!builder)
      throw new Problem('no-builder', `${opened.row.name} has no image builder.`, {
        detail: 'The template version that it was started with has none.',
        hint: 'Update the workspace if a newer version has one. Otherwise ask an administrator to add builder to the kubernetes section of the template.',
        actions: [{ kind: 'update-workspace', workspace: `${opened.owner}/${opened.row.name}` }],
      });
    return { ...opened, ...builder };
  }

  serve(app, getBuilder, async ({ actor, params }) => {
    const { row, owner, connection, namespace, address } = await open(actor, params.workspace);
    const pod = connection.view.get('Pod', namespace, builderNames.pod);
    const ready = pod !== null && !pod.metadata.deletionTimestamp && hasCondition(pod, 'Ready');
    if (ready) return { ...address, ready, reason: null };
    const there = connection.view.get('StatefulSet', namespace, builderNames.app) !== null;
    const missing = row.status === 'running' && !there;
    const reason = missing
      ? builderDeleted(`${owner}/${row.name}`)
      : await notReadyReason(connection, namespace, pod);
    return { ...address, ready, reason };
  });

  serve(app, createBuilderCredentials, async (input) => {
    const { row, owner, connection, namespace, secret } = await open(input.actor, input.params.workspace);
    if (secret === null) return { auths: {} };
    const found = await connection.client
      .get({ apiVersion: 'v1', kind: 'Secret', namespace, name: secret })
      .catch((error) => {
        throw namespaceProblem(error, connection.record.name, namespace);
      });
    const auths = found && registryAuths(found);
    if (!auths)
      throw new Problem('registry-secret-invalid', `The secret ${secret} has no registry credentials.`, {
        detail: 'The template names it in builder.registrySecret.',
        hint: 'Ask an administrator to create it again: kubectl create secret docker-registry',
      });
    await writeAudit(deps.database.db, input, {
      action: 'workspace.builder-credentials',
      targetType: 'workspace',
      targetId: row.id,
      targetName: `${owner}/${row.name}`,
      after: { cluster: connection.record.name, namespace, registries: Object.keys(auths) },
    });
    return { auths };
  });
}

/** For a workspace that runs without it. */
const builderDeleted = (workspace: string) => ({
  code: 'builder-missing',
  message: 'The StatefulSet of the builder was deleted.',
  hint: 'The next start creates it again.',
  actions: [{ kind: 'restart-workspace' as const, workspace }],
  fatal: true,
});

/** The last lines of a log without buildkitd's stack trace. */
const withoutStack = (log: string): string =>
  log
    .split('\n')
    .filter((line) => !/^(\t.*|[\w./*()-]*)$/.test(line))
    .slice(-10)
    .join('\n');

const isPrivileged = ({ spec }: Kube<'Pod'>) =>
  spec?.containers.some(({ securityContext }) => securityContext?.privileged) ?? false;
const rootlessHint =
  'Its last lines are above. Not every node can run a rootless builder. Ask a template admin to set podSecurity: privileged and builder.rootless: false.';

/** Why a builder is not ready, according to the cluster; null while it is starting or nothing is known. */
async function notReadyReason({ client, view }: Connection, namespace: string, pod: Kube<'Pod'> | null) {
  const claim = view.get('PersistentVolumeClaim', namespace, builderNames.cache);
  const container = pod && containerStatus(pod, builderNames.container);
  const lastLines = container?.restartCount
    ? await client
        .logs(namespace, builderNames.pod, {
          container: builderNames.container,
          tailLines: 60,
          // A container that waits for a restart shows the log of its last run.
          previous: container.state?.running !== undefined,
        })
        .then(withoutStack, (error) => {
          if (error instanceof KubeError) return undefined;
          throw error;
        })
    : undefined;
  const reason = explain({
    pod,
    events: view.list('Event', namespace),
    claims: claim ? [claim] : [],
    statefulSet: view.get('StatefulSet', namespace, builderNames.app),
    ...(lastLines !== undefined && { lastLines }),
  });
  if (!reason) return null;
  const { code, message, detail, fatal } = reason;
  const hint = code === 'crashed' && pod && !isPrivileged(pod) ? rootlessHint : reason.hint;
  return { code, message, fatal, ...(detail && { detail }), ...(hint && { hint }) };
}
