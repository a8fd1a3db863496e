import { createBuilderCredentials, getBuilder } from '@cde/api/clusters.ts';
import type { FastifyInstance } from 'fastify';
import type { Database } from '../database/pool.ts';
import { Problem } from '../errors.ts';
import type { Actor } from '../http/actor.ts';
import { serve } from '../http/serve.ts';
import { writeAudit } from '../identity/audit.ts';
import { builderNames, registryAuths } from '../providers/kubernetes/builder.ts';
import { KubeError, type KubeObject } from '../providers/kubernetes/client.ts';
import type { Connection, Connections } from '../providers/kubernetes/connections.ts';
import { explain } from '../providers/kubernetes/reasons.ts';
import { builderAddress, namespaceProblem, openNamespace } from './namespaces.ts';

/** `/workspaces/:workspace/builder`: where images are built, whether it is ready, and with which credentials. */
export function builderRoutes(
  app: FastifyInstance,
  deps: { database: Database; connections: Connections },
): void {
  async function open(actor: Extract<Actor, { kind: 'user' }>, workspace: string) {
    const opened = await openNamespace(deps, actor, workspace, 'no-builder');
    const builder = builderAddress(opened.connection, opened.namespace);
    if (!builder)
      throw new Problem('no-builder', `${opened.row.name} has no builder of images.`, {
        detail: 'The version of the template that it was started with asks for none.',
        hint: 'Where a newer version has one: cde update. Else an administrator adds builder to the section kubernetes of the template.',
      });
    return { ...opened, ...builder };
  }

  serve(app, getBuilder, async ({ actor, params }) => {
    const { connection, namespace, address } = await open(actor, params.workspace);
    const pod = connection.view.get('Pod', namespace, builderNames.pod);
    const ready = pod !== null && !pod.metadata.deletionTimestamp && isReady(pod);
    return { ...address, ready, reason: ready ? null : await whyNot(connection, namespace, pod) };
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
      throw new Problem(
        'registry-secret-invalid',
        `The secret ${secret} holds no credentials of a registry.`,
        {
          detail: 'The builder of the template names it as its registrySecret.',
          hint: 'An administrator makes it anew: kubectl create secret docker-registry',
        },
      );
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

const statusOf = (pod: KubeObject) =>
  (pod.status ?? {}) as {
    conditions?: { type: string; status: string }[];
    containerStatuses?: { restartCount?: number }[];
  };
const isReady = (pod: KubeObject) =>
  statusOf(pod).conditions?.some(({ type, status }) => type === 'Ready' && status === 'True') ?? false;

/** Why a builder is not ready, in the words of the cluster; null while it gets on, or nothing is known. */
async function whyNot({ client, view }: Connection, namespace: string, pod: KubeObject | null) {
  const claim = view.get('PersistentVolumeClaim', namespace, builderNames.cache);
  const restarts = (pod && statusOf(pod).containerStatuses?.[0]?.restartCount) ?? 0;
  const lastLines =
    restarts === 0
      ? undefined
      : await client
          .logs(namespace, builderNames.pod, {
            container: builderNames.container,
            tailLines: 10,
            previous: true,
          })
          .catch((error) => {
            if (error instanceof KubeError) return undefined;
            throw error;
          });
  const reason = explain({
    pod,
    events: view.list('Event', namespace),
    claims: claim ? [claim] : [],
    statefulSet: view.get('StatefulSet', namespace, builderNames.app),
    ...(lastLines !== undefined && { lastLines }),
  });
  if (!reason) return null;
  const { code, message, detail, hint, fatal } = reason;
  return { code, message, fatal, ...(detail && { detail }), ...(hint && { hint }) };
}
