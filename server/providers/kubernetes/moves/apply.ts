import type { ProviderError, StepContext } from '../../provider.ts';
import { type KubeClient, KubeError, type KubeObject, type KubeRef } from '../api/client.ts';
import type { Connection } from '../api/connections.ts';
import { labels } from '../api/names.ts';
import { MoveFailure } from '../objects/failure.ts';

const describeObject = ({ kind, metadata: { name } }: KubeObject) => `${kind} ${name}`;

/** Applies one object; what Kubernetes says against it is told in words. Passes `away` failures on. */
export async function applyOne(
  { client, view }: Pick<Connection, 'client' | 'view'>,
  object: KubeObject,
): Promise<KubeObject> {
  try {
    const applied = await client.apply(object);
    view.upsert(applied);
    return applied;
  } catch (error) {
    if (!(error instanceof KubeError) || error.unreachable) throw error;
    if (isTerminating(error, object)) throw new NamespaceTerminating(object.metadata.namespace!);
    throw new MoveFailure(describeRejection(error, object));
  }
}

/** The namespace is being deleted by somebody, or is gone: the next attempt begins with it. */
export class NamespaceTerminating extends Error {
  constructor(namespace: string) {
    super(`The namespace ${namespace} is being deleted.`);
  }
}

const isTerminating = ({ status, message, causes }: KubeError, { metadata: { namespace } }: KubeObject) =>
  namespace !== undefined &&
  (causes.some(({ reason }) => reason === 'NamespaceTerminating') ||
    (status === 404 && message.includes(`namespaces "${namespace}" not found`)));

/** What Kubernetes says against an object. */
export function describeRejection(error: KubeError, object: KubeObject): ProviderError {
  const what = describeObject(object);
  if (error.reason === 'Conflict' && error.causes.length > 0) {
    const fields = error.causes.map(({ field, message }) => {
      const manager = /conflict with "([^"]+)"/.exec(message)?.[1] ?? 'somebody else';
      return `${field?.replace(/^\./, '') ?? 'a field'} is kept by ${manager}`;
    });
    return {
      code: 'field-conflict',
      message: `The ${what} has fields that somebody else keeps, and we do not take them.`,
      detail: fields.join('; '),
      hint: 'Take the field out of the template, or have the other let go of it; then start again.',
      fault: 'user',
    };
  }
  if (error.status === 403 && /exceeded quota/.test(error.message))
    return {
      code: 'quota-exceeded',
      message: `The quota of the namespace does not permit the ${what}.`,
      detail: error.message,
      hint: "Raise the template's kubernetes.quota, or make the manifest smaller.",
      fault: 'user',
    };
  if (error.status === 403)
    return {
      code: 'cluster-forbids',
      message: `The cluster does not permit the ${what}.`,
      detail: error.message,
      hint: 'An administrator can see which permissions are missing in the checks of the cluster.',
      fault: 'system',
    };
  if (error.reason === 'ClusterScoped')
    return {
      code: 'kind-not-namespaced',
      message: `The ${what} of the template does not belong to a namespace.`,
      detail: error.message,
      hint: 'A template makes what is in its own namespace; create this one on the cluster, once for all.',
      fault: 'user',
    };
  if (error.reason === 'NoSuchKind')
    return {
      code: 'kind-unknown',
      message: `The cluster does not know the kind of the ${what}.`,
      detail: error.message,
      hint: 'Its operator or its definition has to be installed on the cluster first.',
      fault: 'user',
    };
  return {
    code: 'manifest-refused',
    message: `The cluster refuses the ${what}.`,
    detail: error.message,
    hint: 'Have the template mended.',
    fault: 'user',
  };
}

/** Secrets that the template names on the cluster. Only those that were marked for it may be copied. */
export async function readSecretCopies(client: KubeClient, names: readonly string[]): Promise<KubeObject[]> {
  const copies: KubeObject[] = [];
  for (const each of new Set(names)) {
    const [namespace, name] = each.split('/') as [string, string];
    const secret = await client.get({ apiVersion: 'v1', kind: 'Secret', namespace, name }).catch((error) => {
      if (!(error instanceof KubeError) || error.status !== 403) throw error;
      throw new MoveFailure({
        code: 'secret-not-copied',
        message: `The server may not read the secret ${each}.`,
        hint: 'Ask an administrator to allow it: workspaces.copySecrets of the chart, or --copy-secret of the cluster role.',
        fault: 'system',
      });
    });
    if (!secret || secret.metadata.labels?.[labels.copy] !== 'true')
      throw new MoveFailure({
        code: 'secret-not-copied',
        message: secret
          ? `The secret ${each} is not marked to be copied into workspaces.`
          : `The cluster has no secret ${each}.`,
        hint: `Make it, and mark it: kubectl label secret -n ${namespace} ${name} ${labels.copy}=true`,
        fault: 'user',
      });
    copies.push(secret);
  }
  return copies;
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

/** Removes what `before` names and `now` does not. Volumes stay: what is on them nothing brings back. */
export async function prune(
  client: KubeClient,
  before: readonly KubeRef[],
  now: readonly KubeRef[],
  context: StepContext,
): Promise<void> {
  const wanted = new Set(now.map(key));
  for (const ref of before) {
    if (wanted.has(key(ref))) continue;
    // But for a cache, which only saves time.
    if (ref.kind === 'PersistentVolumeClaim' && ref.name !== 'builder-cache') {
      context.log(`the volume claim ${ref.name} is not in the template any more; it is kept`, 'warn');
      continue;
    }
    try {
      if (await client.remove(ref))
        context.log(`removed the ${ref.kind} ${ref.name}: the template names it no more`);
    } catch (error) {
      if (error instanceof KubeError && error.reason === 'NoSuchKind') continue;
      throw error;
    }
  }
}
