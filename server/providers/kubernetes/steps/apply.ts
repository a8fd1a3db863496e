import type { ProviderError, StepContext } from '../../provider.ts';
import { type KubeClient, KubeError, type KubeRef } from '../api/client.ts';
import type { Connection } from '../api/connections.ts';
import type { Kube, KubeObject, KubeOf } from '../api/models.ts';
import { labels } from '../api/names.ts';
import { StepFailure } from '../objects/failure.ts';

type ObjectName = Pick<KubeObject, 'kind' | 'metadata'>;

const describeObject = ({ kind, metadata: { name } }: ObjectName) => `${kind} ${name}`;

/**
 * Applies one object.
 * @throws StepFailure when the cluster rejects it, NamespaceTerminating, KubeError when the cluster is unreachable
 */
export async function applyOne<Kind extends string>(
  { client, view }: Pick<Connection, 'client' | 'view'>,
  object: { kind: Kind } & KubeOf<Kind>,
): Promise<KubeOf<Kind>> {
  try {
    const applied = await client.apply<Kind>(object);
    view.upsert(applied);
    return applied;
  } catch (error) {
    if (!(error instanceof KubeError) || error.unreachable) throw error;
    if (isTerminating(error, object)) throw new NamespaceTerminating(object.metadata.namespace!);
    throw new StepFailure(describeRejection(error, object));
  }
}

/** The namespace is terminating or gone: the next step creates it again. */
export class NamespaceTerminating extends Error {
  constructor(namespace: string) {
    super(`The namespace ${namespace} is being deleted.`);
  }
}

const isTerminating = ({ status, message, causes }: KubeError, { metadata: { namespace } }: ObjectName) =>
  namespace !== undefined &&
  (causes.some(({ reason }) => reason === 'NamespaceTerminating') ||
    (status === 404 && message.includes(`namespaces "${namespace}" not found`)));

/** Why the cluster rejects an object. */
export function describeRejection(error: KubeError, object: ObjectName): ProviderError {
  const what = describeObject(object);
  if (error.reason === 'Conflict' && error.causes.length > 0) {
    const fields = error.causes.map(({ field, message }) => {
      const manager = /conflict with "([^"]+)"/.exec(message)?.[1] ?? 'another field manager';
      return `${field?.replace(/^\./, '') ?? 'a field'} is owned by ${manager}`;
    });
    return {
      code: 'field-conflict',
      message: `The ${what} has fields that another field manager owns.`,
      detail: fields.join('; '),
      hint: 'Remove the field from the template, or have the other manager release it; then start again.',
      fault: 'user',
    };
  }
  if (error.status === 403 && /exceeded quota/.test(error.message))
    return {
      code: 'quota-exceeded',
      message: `The ${what} exceeds the quota of the namespace.`,
      detail: error.message,
      hint: 'Raise kubernetes.quota in the template, or request less in the manifest.',
      fault: 'user',
    };
  if (error.status === 403)
    return {
      code: 'cluster-forbids',
      message: `The cluster forbids the server to apply the ${what}.`,
      detail: error.message,
      hint: 'An administrator can see which permissions are missing in the checks of the cluster.',
      fault: 'system',
    };
  if (error.reason === 'ClusterScoped')
    return {
      code: 'kind-not-namespaced',
      message: `The ${what} of the template is cluster-scoped.`,
      detail: error.message,
      hint: 'Templates only create objects in the namespace of the workspace. Create this one on the cluster yourself.',
      fault: 'user',
    };
  if (error.reason === 'NoSuchKind')
    return {
      code: 'kind-unknown',
      message: `The cluster does not know the kind of the ${what}.`,
      detail: error.message,
      hint: 'Install its operator or its CustomResourceDefinition on the cluster first.',
      fault: 'user',
    };
  return {
    code: 'manifest-refused',
    message: `The cluster rejects the ${what}.`,
    detail: error.message,
    hint: 'Ask a template admin to fix the template.',
    fault: 'user',
  };
}

/** Reads the secrets that the template copies. Only secrets with the label `cde.dev/copy=true` are allowed. */
export async function readSecretCopies(
  client: KubeClient,
  names: readonly string[],
): Promise<Kube<'Secret'>[]> {
  const copies: Kube<'Secret'>[] = [];
  for (const each of new Set(names)) {
    const [namespace, name] = each.split('/') as [string, string];
    const secret = await client.get({ apiVersion: 'v1', kind: 'Secret', namespace, name }).catch((error) => {
      if (!(error instanceof KubeError) || error.status !== 403) throw error;
      throw new StepFailure({
        code: 'secret-not-copied',
        message: `The server is not allowed to read the secret ${each}.`,
        hint: 'Ask an administrator to allow it: workspaces.copySecrets of the chart, or --copy-secret of the cluster role.',
        fault: 'system',
      });
    });
    if (!secret || secret.metadata.labels?.[labels.copy] !== 'true')
      throw new StepFailure({
        code: 'secret-not-copied',
        message: secret
          ? `The secret ${each} is not labelled for copying into workspaces.`
          : `The cluster has no secret ${each}.`,
        hint: `Create it, and label it: kubectl label secret -n ${namespace} ${name} ${labels.copy}=true`,
        fault: 'user',
      });
    copies.push(secret);
  }
  return copies;
}

/** Deletes an object unless it is gone, or has changed since `seen` was read. */
export async function removeUnchanged(
  client: KubeClient,
  { apiVersion, kind, metadata: { name, namespace, uid, resourceVersion } }: KubeObject,
): Promise<void> {
  const ref = { apiVersion, kind, name, ...(namespace && { namespace }) };
  await client
    .remove(ref, { ...(uid && { uid }), ...(resourceVersion && { resourceVersion }) })
    .catch(ignoreConflict);
}

/** The object is not the one that was to be removed. */
export function ignoreConflict(error: unknown): void {
  if (!(error instanceof KubeError) || error.status !== 409) throw error;
}

const key = ({ apiVersion, kind, name }: KubeRef) => `${apiVersion.split('/')[0]} ${kind} ${name}`;

export const refsOf = (objects: readonly KubeObject[]): KubeRef[] =>
  objects
    .filter(({ kind }) => kind !== 'Namespace')
    .map(({ apiVersion, kind, metadata: { name, namespace } }) => ({
      apiVersion,
      kind,
      name,
      ...(namespace && { namespace }),
    }));

/** Removes the objects in `before` that are not in `now`, except volume claims, as their data would be lost. */
export async function prune(
  client: KubeClient,
  before: readonly KubeRef[],
  now: readonly KubeRef[],
  context: StepContext,
): Promise<void> {
  const wanted = new Set(now.map(key));
  for (const ref of before) {
    if (wanted.has(key(ref))) continue;
    // The builder's cache can be rebuilt.
    if (ref.kind === 'PersistentVolumeClaim' && ref.name !== 'builder-cache') {
      context.log(`the volume claim ${ref.name} is no longer in the template; it is kept`, 'warn');
      continue;
    }
    try {
      if (await client.remove(ref))
        context.log(`removed the ${ref.kind} ${ref.name}: it is no longer in the template`);
    } catch (error) {
      if (error instanceof KubeError && error.reason === 'NoSuchKind') continue;
      throw error;
    }
  }
}
