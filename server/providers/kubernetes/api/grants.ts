import { setTimeout as sleep } from 'node:timers/promises';
import { type KubeClient, KubeError } from './client.ts';
import type { ClusterView, Grants, Identity } from './connections.ts';
import { apiVersions, type Kube } from './models.ts';
import { labels, serverLabel } from './names.ts';

/** How long cluster-wide rights are cached: an administrator may replace them with the smaller role. */
const cacheMs = 60_000;
/** A new binding takes effect within milliseconds. */
const pollMs = 50;
const maxWaitMs = 10_000;

const bindingNames = { server: 'cde-server', admin: 'cde-server-admin' } as const;

/** The ClusterRole with a server's rights in its namespaces, created by the chart or `cde cluster role`. */
const workspacesRole = (namespace: string, name: string) => `cde:workspaces:${namespace}:${name}`;

/** The server's identity on a cluster, and its rights in its namespaces. */
export function makeGrants(client: KubeClient, view: Pick<ClusterView, 'get' | 'upsert'>): Grants {
  let known: { identity: Identity | null; at: number } | null = null;

  async function findIdentity(): Promise<Identity | null> {
    const review = await client.create({
      apiVersion: 'authentication.k8s.io/v1',
      kind: 'SelfSubjectReview',
      metadata: { name: '' },
    });
    const username = review.status?.userInfo?.username ?? '';
    const [, namespace, name] = /^system:serviceaccount:([^:]+):([^:]+)$/.exec(username) ?? [];
    if (!namespace || !name) return null;
    const role = workspacesRole(namespace, name);
    const clusterRole = await client.get({
      apiVersion: apiVersions.ClusterRole,
      kind: 'ClusterRole',
      name: role,
    });
    return clusterRole && { namespace, name, label: serverLabel(namespace, name), role };
  }

  async function identity(): Promise<Identity | null> {
    if (known && (known.identity || Date.now() - known.at < cacheMs)) return known.identity;
    const found = await findIdentity().catch((error) => {
      // Not permitted, or the cluster is too old for SelfSubjectReview.
      if (error instanceof KubeError && [403, 404, 405].includes(error.status)) return null;
      throw error;
    });
    known = { identity: found, at: Date.now() };
    return found;
  }

  const bindingsOf = (of: Identity, namespace: string, more: Record<string, string>): Kube<'RoleBinding'>[] =>
    [
      { name: bindingNames.server, role: of.role },
      { name: bindingNames.admin, role: 'admin' },
    ].map(({ name, role }) => ({
      apiVersion: apiVersions.RoleBinding,
      kind: 'RoleBinding' as const,
      metadata: { name, namespace, labels: more },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: role },
      subjects: [{ kind: 'ServiceAccount', name: of.name, namespace: of.namespace }],
    }));

  /** Creates a binding, and replaces an existing one that grants something else. */
  async function bind(wanted: Kube<'RoleBinding'>): Promise<void> {
    const { apiVersion, kind, metadata } = wanted;
    const ref = { apiVersion, kind, namespace: metadata.namespace, name: metadata.name };
    for (let attempt = 0; ; attempt++) {
      try {
        return view.upsert(await client.create(wanted));
      } catch (error) {
        if (!(error instanceof KubeError) || error.reason !== 'AlreadyExists' || attempt > 2) throw error;
        const existing = await client.get(ref);
        if (existing && isSameBinding(existing, wanted)) return view.upsert(existing);
        if (existing) await client.remove(ref, existing.metadata.uid ? { uid: existing.metadata.uid } : {});
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
    return review.status?.allowed === true;
  }

  async function ensure(namespace: string, more: Record<string, string> = {}): Promise<boolean> {
    const of = await identity();
    const there = view.get('Namespace', '', namespace);
    if (!of || !there || there.metadata.deletionTimestamp) return false;
    const own = there.metadata.labels ?? {};
    // The watch selects by this label.
    const installation = own[labels.installation];
    const wanted = bindingsOf(of, namespace, {
      ...(installation && { [labels.installation]: installation }),
      ...more,
    });
    const missing = wanted.filter((each) => {
      const binding = view.get('RoleBinding', namespace, each.metadata.name);
      return !binding || !isSameBinding(binding, each);
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
    // One permission from each of the two roles.
    for (const resource of ['resourcequotas', 'secrets'])
      while (!(await isAllowed(namespace, resource)) && Date.now() < until) await sleep(pollMs);
    return true;
  }

  return { identity, ensure };
}

const isSameBinding = (a: Kube<'RoleBinding'>, b: Kube<'RoleBinding'>) => grantsOf(a) === grantsOf(b);

const grantsOf = ({ roleRef, subjects = [] }: Kube<'RoleBinding'>) =>
  JSON.stringify([
    roleRef.kind,
    roleRef.name,
    subjects.map(({ kind, name, namespace }) => [kind, name, namespace]),
  ]);
