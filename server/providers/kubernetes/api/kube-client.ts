import {
  fieldManager,
  type KubeClient,
  KubeError,
  type KubeKind,
  type KubeObject,
  type KubeRef,
  type WatchEvent,
} from './client.ts';
import type { ClusterRecord } from './connections.ts';
import { makeKindResolver } from './kinds.ts';
import { makeTransport } from './transport.ts';

/** Objects that one page of a list holds. */
const pageSize = 500;

/** Calls to one cluster. Rejects with KubeError (`BadCredentials`) when the credentials cannot be used at all. */
export async function makeKubeClient(
  record: Pick<ClusterRecord, 'name' | 'credentials'>,
): Promise<KubeClient> {
  const transport = await makeTransport(record);
  const { request } = transport;
  const kinds = makeKindResolver(async (path) => {
    try {
      const { resources } = (await request('GET', path)) as {
        resources: { name: string; kind: string; namespaced: boolean }[];
      };
      return resources;
    } catch (error) {
      if (error instanceof KubeError && error.status === 404) return null;
      throw error;
    }
  });

  async function collection(kind: KubeKind | KubeRef): Promise<string> {
    const resource = await kinds.resource(kind.apiVersion, kind.kind);
    if (!resource)
      throw new KubeError(`The cluster does not know ${kind.kind} of ${kind.apiVersion}.`, {
        status: 404,
        reason: 'NoSuchKind',
      });
    // Else an object meant for one namespace would be written for the whole cluster.
    if (!resource.namespaced && kind.namespace)
      throw new KubeError(
        `${kind.kind} of ${kind.apiVersion} belongs to the cluster, and to no namespace such as ${kind.namespace}.`,
        { status: 400, reason: 'ClusterScoped' },
      );
    return kinds.pathOf(kind, resource);
  }
  const pathOf = async (ref: KubeRef) => `${await collection(ref)}/${encodeURIComponent(ref.name)}`;
  const refOf = ({ apiVersion, kind, metadata: { name, namespace } }: KubeObject): KubeRef => ({
    apiVersion,
    kind,
    name,
    ...(namespace && { namespace }),
  });
  const nullIfMissing = (error: unknown): null => {
    if (error instanceof KubeError && error.status === 404 && error.reason !== 'NoSuchKind') return null;
    throw error;
  };

  async function apply(
    object: KubeObject,
    { dryRun = false, force = false }: { dryRun?: boolean; force?: boolean } = {},
  ): Promise<KubeObject> {
    const path = await pathOf(refOf(object));
    const send = (forced: boolean) =>
      request('PATCH', `${path}?fieldManager=${fieldManager}&force=${forced}${dryRun ? '&dryRun=All' : ''}`, {
        body: object,
        contentType: 'application/apply-patch+yaml',
      }) as Promise<KubeObject>;
    try {
      return await send(force);
    } catch (error) {
      if (!(error instanceof KubeError) || error.reason !== 'Conflict') throw error;
      // What we wrote ourselves by other means (a scale to zero) is in nobody's way.
      const ours = error.causes.every(({ message }) => message.startsWith(`conflict with "${fieldManager}"`));
      if (error.causes.length === 0 || !ours) throw error;
      return send(true);
    }
  }

  async function listFrom(kind: KubeKind): Promise<{ items: KubeObject[]; resourceVersion: string }> {
    const path = await collection(kind);
    const items: KubeObject[] = [];
    let continueToken = '';
    for (;;) {
      const query = new URLSearchParams({
        limit: String(pageSize),
        ...(kind.labels && { labelSelector: kind.labels }),
        ...(kind.fields && { fieldSelector: kind.fields }),
        ...(continueToken && { continue: continueToken }),
      });
      const page = (await request('GET', `${path}?${query}`)) as {
        items: KubeObject[];
        metadata: { resourceVersion: string; continue?: string };
      };
      // In a list the items carry neither.
      for (const item of page.items ?? [])
        items.push({ ...item, apiVersion: kind.apiVersion, kind: kind.kind });
      continueToken = page.metadata.continue ?? '';
      if (!continueToken) return { items, resourceVersion: page.metadata.resourceVersion };
    }
  }

  return {
    server: transport.server,
    certificateAuthority: transport.certificateAuthority,
    calls: transport.calls,
    apply,
    listFrom,
    close: transport.close,
    get: async (ref) => (request('GET', await pathOf(ref)) as Promise<KubeObject>).catch(nullIfMissing),
    list: async (kind) => (await listFrom(kind)).items,
    create: async (object) =>
      request('POST', `${await collection(refOf(object))}?fieldManager=${fieldManager}`, {
        body: object,
      }) as Promise<KubeObject>,
    patch: async (ref, patch, subresource) =>
      request(
        'PATCH',
        `${await pathOf(ref)}${subresource ? `/${subresource}` : ''}?fieldManager=${fieldManager}`,
        {
          body: patch,
          contentType: 'application/merge-patch+json',
        },
      ) as Promise<KubeObject>,
    async remove(ref, { graceSeconds, propagation = 'Background', uid } = {}) {
      const body = {
        apiVersion: 'v1',
        kind: 'DeleteOptions',
        propagationPolicy: propagation,
        ...(graceSeconds !== undefined && { gracePeriodSeconds: graceSeconds }),
        ...(uid && { preconditions: { uid } }),
      };
      return (await request('DELETE', await pathOf(ref), { body }).catch(nullIfMissing)) !== null;
    },
    async logs(namespace, pod, { container, tailLines, previous = false }) {
      const query = new URLSearchParams({
        container,
        tailLines: String(tailLines),
        previous: String(previous),
      });
      const path = await pathOf({ apiVersion: 'v1', kind: 'Pod', namespace, name: pod });
      return (await request('GET', `${path}/log?${query}`, { text: true })) as string;
    },
    async token(namespace, serviceAccount, seconds) {
      const path = await pathOf({
        apiVersion: 'v1',
        kind: 'ServiceAccount',
        namespace,
        name: serviceAccount,
      });
      const { status } = (await request('POST', `${path}/token`, {
        body: {
          apiVersion: 'authentication.k8s.io/v1',
          kind: 'TokenRequest',
          spec: { expirationSeconds: seconds },
        },
      })) as { status: { token: string; expirationTimestamp: string } };
      return { token: status.token, expiresAt: new Date(status.expirationTimestamp) };
    },
    version: async () => ((await request('GET', '/version')) as { gitVersion: string }).gitVersion,
    serves: async (apiVersion, kind) => (await kinds.resource(apiVersion, kind)) !== null,
    async watch(kind, { resourceVersion, seconds, signal }, onEvent) {
      const query = new URLSearchParams({
        watch: 'true',
        allowWatchBookmarks: 'true',
        resourceVersion,
        timeoutSeconds: String(seconds),
        ...(kind.labels && { labelSelector: kind.labels }),
        ...(kind.fields && { fieldSelector: kind.fields }),
      });
      await transport.stream(`${await collection(kind)}?${query}`, signal, (line) => {
        const event = JSON.parse(line) as
          | WatchEvent
          | { type: 'ERROR'; object: { code?: number; message?: string; reason?: string } };
        if (event.type === 'ERROR')
          throw new KubeError(event.object.message ?? 'the watch failed', {
            status: event.object.code ?? 500,
            reason: event.object.reason ?? '',
            unreachableError: event.object.code !== 410,
          });
        onEvent(event);
      });
    },
  };
}
