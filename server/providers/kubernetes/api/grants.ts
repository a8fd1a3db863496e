import { setTimeout as sleep } from 'node:timers/promises';
import { type KubeClient, KubeError, type KubeObject } from './client.ts';
import type { ClusterView, Grants, Identity } from './connections.ts';
import { labels, serverLabel } from './names.ts';

/** How long it is believed that the credentials have rights everywhere: an administrator may make them smaller. */
const believedMs = 60_000;
/** API servers hear of a new binding within some milliseconds. */
const pollMs = 50;
const maxWaitMs = 10_000;

export const bindingNames = { server: 'cde-server', admin: 'cde-server-admin' } as const;

/** The ClusterRole of a server's rights in its namespaces; the chart and `cde cluster role` make it. */
export const workspacesRole = (namespace: string, name: string) => `cde:workspaces:${namespace}:${name}`;

/** Who we are on a cluster, and our rights in its namespaces. */
export function makeGrants(client: KubeClient, view: Pick<ClusterView, 'get' | 'upsert'>): Grants {
  let known: { identity: Identity | null; at: number } | null = null;

  async function ask(): Promise<Identity | null> {
    const review = await client.create({
      apiVersion: 'authentication.k8s.io/v1',
      kind: 'SelfSubjectReview',
      metadata: { name: '' },
    });
    const { username = '' } =
      (review.status as { userInfo?: { username?: string } } | undefined)?.userInfo ?? {};
    const [, namespace, name] = /^system:serviceaccount:([^:]+):([^:]+)$/.exec(username) ?? [];
    if (!namespace || !name) return null;
    const role = workspacesRole(namespace, name);
    const there = await client.get({
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'ClusterRole',
      name: role,
    });
    return there && { namespace, name, label: serverLabel(namespace, name), role };
  }

  async function identity(): Promise<Identity | null> {
    if (known && (known.identity || Date.now() - known.at < believedMs)) return known.identity;
    const found = await ask().catch((error) => {
      // Not permitted to look, or too old to say who we are.
      if (error instanceof KubeError && [403, 404, 405].includes(error.status)) return null;
      throw error;
    });
    known = { identity: found, at: Date.now() };
    return found;
  }

  function bindings(of: Identity, namespace: string, more: Record<string, string>): KubeObject[] {
    return [
      { name: bindingNames.server, role: of.role },
      { name: bindingNames.admin, role: 'admin' },
    ].map(({ name, role }) => ({
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'RoleBinding',
      metadata: { name, namespace, labels: more },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: role },
      subjects: [{ kind: 'ServiceAccount', name: of.name, namespace: of.namespace }],
    }));
  }

  /** Makes a binding; one of that name that says something else is replaced. */
  async function bind(wanted: KubeObject): Promise<void> {
    const ref = { ...wanted, ...wanted.metadata } as unknown as Parameters<KubeClient['get']>[0];
    for (let attempt = 0; ; attempt++) {
      try {
        return view.upsert(await client.create(wanted));
      } catch (error) {
        if (!(error instanceof KubeError) || error.reason !== 'AlreadyExists' || attempt > 2) throw error;
        const there = await client.get(ref);
        if (there && saysTheSame(there, wanted)) return view.upsert(there);
        if (there) await client.remove(ref, there.metadata.uid ? { uid: there.metadata.uid } : {});
      }
    }
  }

  async function isAllowed(namespace: string, resource: string): Promise<boolean> {
    const review = await client.create({
      apiVersion: 'authorization.k8s.io/v1',
      kind: 'SelfSubjectAccessReview',
      metadata: { name: '' },
      spec: { resourceAttributes: { namespace, verb: 'create', group: '', resource } },
    });
    return (review.status as { allowed?: boolean } | undefined)?.allowed === true;
  }

  async function ensure(namespace: string, more: Record<string, string> = {}): Promise<boolean> {
    const of = await identity();
    const there = view.get('Namespace', '', namespace);
    if (!of || !there || there.metadata.deletionTimestamp) return false;
    const own = there.metadata.labels ?? {};
    // By this label the watch sees them.
    const installation = own[labels.installation];
    const wanted = bindings(of, namespace, {
      ...(installation && { [labels.installation]: installation }),
      ...more,
    });
    const missing = wanted.filter((each) => {
      const binding = view.get('RoleBinding', namespace, each.metadata.name);
      return !binding || !saysTheSame(binding, each);
    });
    if (own[labels.server] === of.label && missing.length === 0) return false;
    if (own[labels.server] !== of.label)
      view.upsert(
        await client.patch(
          { apiVersion: 'v1', kind: 'Namespace', name: namespace },
          { metadata: { labels: { [labels.server]: of.label } } },
        ),
      );
    for (const each of missing) await bind(each);
    const until = Date.now() + maxWaitMs;
    // One right of each of the two roles.
    for (const resource of ['resourcequotas', 'secrets'])
      while (!(await isAllowed(namespace, resource)) && Date.now() < until) await sleep(pollMs);
    return true;
  }

  return { identity, ensure };
}

const saysTheSame = (a: KubeObject, b: KubeObject) => {
  const what = ({ roleRef, subjects }: KubeObject) => {
    const { kind, name } = roleRef as { kind: string; name: string };
    return JSON.stringify([
      kind,
      name,
      ((subjects ?? []) as { kind: string; name: string; namespace?: string }[]).map((subject) => [
        subject.kind,
        subject.name,
        subject.namespace,
      ]),
    ]);
  };
  return what(a) === what(b);
};
