import type { KubeKind, KubeRef } from './client.ts';

/** Plurals of the kinds that we use, so that they cost no discovery; `*` marks a cluster-scoped one. */
const wellKnown: Record<string, string> = {
  'v1/Namespace': '*namespaces',
  'v1/Node': '*nodes',
  'v1/PersistentVolume': '*persistentvolumes',
  'v1/PersistentVolumeClaim': 'persistentvolumeclaims',
  'v1/Pod': 'pods',
  'v1/Secret': 'secrets',
  'v1/Service': 'services',
  'v1/ServiceAccount': 'serviceaccounts',
  'v1/ConfigMap': 'configmaps',
  'v1/Event': 'events',
  'v1/ResourceQuota': 'resourcequotas',
  'v1/LimitRange': 'limitranges',
  'apps/v1/StatefulSet': 'statefulsets',
  'apps/v1/Deployment': 'deployments',
  'apps/v1/ReplicaSet': 'replicasets',
  'apps/v1/DaemonSet': 'daemonsets',
  'batch/v1/Job': 'jobs',
  'batch/v1/CronJob': 'cronjobs',
  'networking.k8s.io/v1/NetworkPolicy': 'networkpolicies',
  'rbac.authorization.k8s.io/v1/Role': 'roles',
  'rbac.authorization.k8s.io/v1/RoleBinding': 'rolebindings',
  'rbac.authorization.k8s.io/v1/ClusterRole': '*clusterroles',
  'storage.k8s.io/v1/StorageClass': '*storageclasses',
  'authentication.k8s.io/v1/SelfSubjectReview': '*selfsubjectreviews',
  'authorization.k8s.io/v1/SelfSubjectAccessReview': '*selfsubjectaccessreviews',
};

interface Resource {
  plural: string;
  namespaced: boolean;
}

/** `/api/v1` or `/apis/GROUP/VERSION`. */
const groupPath = (apiVersion: string): string =>
  apiVersion.includes('/') ? `/apis/${apiVersion}` : `/api/${apiVersion}`;

/** Finds the resource of a kind, by discovery (`discover`) if it is not well known. */
export function makeKindResolver(
  discover: (path: string) => Promise<{ name: string; kind: string; namespaced: boolean }[] | null>,
) {
  const discovered = new Map<string, Map<string, Resource>>();

  /** Null: the cluster does not serve this kind. A miss is not cached: the kind may be installed later. */
  async function resource(apiVersion: string, kind: string): Promise<Resource | null> {
    const wellKnownPlural = wellKnown[`${apiVersion}/${kind}`];
    if (wellKnownPlural)
      return { plural: wellKnownPlural.replace('*', ''), namespaced: !wellKnownPlural.startsWith('*') };
    const hit = discovered.get(apiVersion)?.get(kind);
    if (hit) return hit;
    const resources = await discover(groupPath(apiVersion));
    if (!resources) return null;
    const kinds = new Map(
      resources
        .filter(({ name }) => !name.includes('/'))
        .map(({ name, kind, namespaced }) => [kind, { plural: name, namespaced }]),
    );
    discovered.set(apiVersion, kinds);
    return kinds.get(kind) ?? null;
  }

  function pathOf({ apiVersion, namespace }: KubeKind | KubeRef, { plural, namespaced }: Resource): string {
    const inside = namespaced && namespace ? `/namespaces/${encodeURIComponent(namespace)}` : '';
    return `${groupPath(apiVersion)}${inside}/${plural}`;
  }

  return { resource, pathOf };
}
