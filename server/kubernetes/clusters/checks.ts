import type { ClusterCheck } from '@cde/api/clusters.ts';
import { KubeError } from '../../providers/kubernetes/api/client.ts';
import type { Connection } from '../../providers/kubernetes/api/connections.ts';
import { hasCondition } from '../../providers/kubernetes/api/models.ts';

/** The permissions that the provider uses. The chart's role grants the same. */
const requiredPermissions: readonly (readonly [group: string, resource: string, verbs: string])[] = [
  ['', 'namespaces', 'get list watch create patch delete'],
  ['', 'pods', 'get list watch delete'],
  ['', 'pods/log', 'get'],
  ['', 'events', 'list watch'],
  ['', 'persistentvolumeclaims', 'get list watch create patch delete'],
  ['', 'persistentvolumes', 'get list patch delete'],
  ['', 'secrets', 'get create patch delete'],
  ['', 'services', 'create patch delete'],
  ['', 'serviceaccounts', 'list watch create patch delete'],
  ['', 'serviceaccounts/token', 'create'],
  ['', 'resourcequotas', 'list watch create patch delete'],
  ['', 'limitranges', 'list watch create patch delete'],
  ['apps', 'statefulsets', 'list watch create patch delete'],
  ['apps', 'deployments', 'list create patch delete'],
  ['apps', 'replicasets', 'list patch'],
  ['batch', 'jobs', 'list patch'],
  ['batch', 'cronjobs', 'list patch'],
  ['networking.k8s.io', 'networkpolicies', 'list watch create patch delete'],
  ['rbac.authorization.k8s.io', 'rolebindings', 'list watch create patch delete'],
];

/** The cluster-wide part of the scoped role. In its own namespaces the server grants itself the rest. */
const scopedPermissions: typeof requiredPermissions = [
  ['', 'namespaces', 'get list watch create patch delete'],
  ['', 'pods', 'list watch'],
  ['', 'events', 'list watch'],
  ['', 'persistentvolumeclaims', 'list watch'],
  ['', 'persistentvolumes', 'get list patch delete'],
  ['', 'serviceaccounts', 'list watch'],
  ['', 'resourcequotas', 'list watch'],
  ['', 'limitranges', 'list watch'],
  ['apps', 'statefulsets', 'list watch'],
  ['networking.k8s.io', 'networkpolicies', 'list watch'],
  ['rbac.authorization.k8s.io', 'rolebindings', 'get list watch create delete'],
];

/** Checks what a cluster offers and lacks. */
export async function checkCluster({
  client,
  grants,
  record,
  state,
  reason,
}: Connection): Promise<ClusterCheck[]> {
  // A cluster that was just added has no state yet and is checked.
  if (state === 'away')
    return [{ name: 'connection', ok: false, message: reason ?? 'the cluster does not answer' }];
  try {
    const version = await client.version();
    const identity = await grants.identity();
    const [missing, classes, nodes, snapshots] = await Promise.all([
      missingPermissions(client, identity ? scopedPermissions : requiredPermissions),
      client.list({ apiVersion: 'storage.k8s.io/v1', kind: 'StorageClass' }),
      client.list({ apiVersion: 'v1', kind: 'Node' }).catch(() => []),
      client.serves('snapshot.storage.k8s.io/v1', 'VolumeSnapshot'),
    ]);
    const defaultClass = classes.find(
      ({ metadata }) => metadata.annotations?.['storageclass.kubernetes.io/is-default-class'] === 'true',
    );
    const ready = nodes.filter((node) => hasCondition(node, 'Ready'));
    return [
      { name: 'connection', ok: true, message: `Kubernetes ${version}` },
      missing.length === 0
        ? {
            name: 'permissions',
            ok: true,
            message: identity
              ? 'everything needed, and only in its own namespaces'
              : 'everything needed, but in all namespaces; a smaller role is enough',
            ...(!identity && { actions: [{ kind: 'print-cluster-role' as const }] }),
          }
        : {
            name: 'permissions',
            ok: false,
            message: `lacks ${missing.join(', ')}`,
            hint: 'Apply the role that the server needs; docs/clusters.md says how.',
            actions: [{ kind: 'print-cluster-role' as const }],
          },
      defaultClass
        ? { name: 'storage', ok: true, message: `homes use the storage class ${defaultClass.metadata.name}` }
        : {
            name: 'storage',
            ok: false,
            message: 'there is no default StorageClass',
            hint: 'Mark one as the default, or name one in each template: kubernetes.storageClass',
          },
      ...(record.credentials.kind === 'in-cluster' && record.publicEndpoint === null
        ? [
            {
              name: 'kubectl',
              ok: true,
              message: `developers get the address inside the cluster, ${client.server}`,
              hint: 'If they cannot reach it, give the cluster a public endpoint.',
              actions: [{ kind: 'configure-cluster' as const, cluster: record.name }],
            },
          ]
        : []),
      {
        name: 'nodes',
        ok: nodes.length === 0 || ready.length > 0,
        message: `${ready.length} of ${nodes.length} ready`,
      },
      {
        name: 'snapshots',
        ok: true,
        message: snapshots
          ? 'the cluster has VolumeSnapshots'
          : 'the cluster has no VolumeSnapshots; homes are retained as volumes',
      },
    ];
  } catch (error) {
    if (!(error instanceof KubeError)) throw error;
    return [{ name: 'connection', ok: false, message: error.message }];
  }
}

async function missingPermissions(
  client: Connection['client'],
  rights: typeof requiredPermissions,
): Promise<string[]> {
  const asked = rights.flatMap(([group, resource, verbs]) =>
    verbs.split(' ').map((verb) => ({ group, resource, verb })),
  );
  const answers = await Promise.all(
    asked.map(async ({ group, resource, verb }) => {
      const [name, subresource] = resource.split('/');
      const review = await client.create({
        apiVersion: 'authorization.k8s.io/v1',
        kind: 'SelfSubjectAccessReview',
        metadata: { name: '' },
        spec: { resourceAttributes: { group, resource: name, verb, ...(subresource && { subresource }) } },
      });
      return review.status?.allowed ? null : `${verb} ${resource}`;
    }),
  );
  return answers.filter((answer) => answer !== null);
}
