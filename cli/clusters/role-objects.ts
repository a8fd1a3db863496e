// A server's permissions on a cluster without the chart: the objects that helm/templates/rbac.yaml and policy.yaml
// render. tests/kubernetes/chart.test.ts compares the two.

const rbac = 'rbac.authorization.k8s.io';
const admission = 'admissionregistration.k8s.io';

export const podSecurityLevels = ['restricted', 'baseline', 'privileged'] as const;
export type PodSecurityLevel = (typeof podSecurityLevels)[number];

export interface RoleOptions {
  namespace: string;
  serviceAccount: string;
  /** The highest level that templates may use. */
  podSecurity: PodSecurityLevel;
  /** Secrets that templates may copy into workspaces, as NAMESPACE/NAME. */
  copySecrets: readonly string[];
}

const read = ['get', 'list', 'watch'];
const write = [...read, 'create', 'patch', 'delete'];
const rule = (apiGroup: string, resources: string[], verbs: string[], resourceNames?: string[]) => ({
  apiGroups: [apiGroup],
  resources,
  ...(resourceNames && { resourceNames }),
  verbs,
});

/**
 * Cluster-wide permissions: what the server reads everywhere, and what the admission policies restrict to its own
 * objects.
 */
const clusterRules = (role: string) => [
  rule('', ['namespaces'], write),
  rule(
    '',
    ['pods', 'persistentvolumeclaims', 'resourcequotas', 'limitranges', 'serviceaccounts', 'events', 'nodes'],
    read,
  ),
  rule('apps', ['statefulsets'], read),
  rule('networking.k8s.io', ['networkpolicies'], read),
  rule('storage.k8s.io', ['storageclasses'], read),
  rule(rbac, ['rolebindings'], [...read, 'create', 'delete']),
  rule(rbac, ['clusterroles'], ['get', 'bind'], ['admin', role]),
  rule('', ['persistentvolumes'], [...read, 'patch', 'delete']),
  rule('snapshot.storage.k8s.io', ['volumesnapshotcontents'], [...read, 'patch', 'delete']),
  rule('snapshot.storage.k8s.io', ['volumesnapshotclasses'], read),
];

/** Permissions in each workspace's namespace, in addition to Kubernetes' role `admin`. */
const workspaceRules = () => [
  rule('', ['resourcequotas', 'limitranges'], write),
  rule('', ['serviceaccounts/token'], ['create']),
  rule('snapshot.storage.k8s.io', ['volumesnapshots'], write),
];

/** The same as in server/providers/kubernetes/objects/names.ts. */
const labelOf = (namespace: string, name: string) =>
  `${namespace}.${name}`.slice(0, 63).replace(/[-.]+$/, '');

type Validation = { expression: string; message?: string; messageExpression?: string };

/** Admission policies that restrict the server to its own namespaces, role bindings in them, and volumes of homes. */
function policies({ namespace, serviceAccount, podSecurity }: RoleOptions) {
  const server = labelOf(namespace, serviceAccount);
  const levels = podSecurityLevels.slice(0, podSecurityLevels.indexOf(podSecurity) + 1);
  const quoted = (text: string) => `'${text}'`;
  const labelsOf = (object: string) => `${object}.metadata.?labels`;
  const label = (object: string, name: string) => `${labelsOf(object)}[?'${name}'].orValue('')`;
  const policy = (
    name: string,
    rules: { group: string; resource: string; operations: string[] }[],
    validations: Validation[],
  ) => [
    {
      apiVersion: `${admission}/v1`,
      kind: 'ValidatingAdmissionPolicy',
      metadata: { name: `${name}.${server}.cde.dev` },
      spec: {
        failurePolicy: 'Fail',
        matchConstraints: {
          resourceRules: rules.map(({ group, resource, operations }) => ({
            apiGroups: [group],
            apiVersions: ['v1'],
            operations,
            resources: [resource],
          })),
        },
        matchConditions: [
          {
            name: 'by-the-server',
            expression: `request.userInfo.username == 'system:serviceaccount:${namespace}:${serviceAccount}'`,
          },
        ],
        validations: validations.map((validation) => ({ ...validation, reason: 'Forbidden' })),
      },
    },
    {
      apiVersion: `${admission}/v1`,
      kind: 'ValidatingAdmissionPolicyBinding',
      metadata: { name: `${name}.${server}.cde.dev` },
      spec: { policyName: `${name}.${server}.cde.dev`, validationActions: ['Deny'] },
    },
  ];
  // Adopts objects of releases before these labels, which are marked as managed and have no owner.
  const isOurs = (object: string, mark: string) =>
    `${label(object, 'cde.dev/server')} == ${quoted(server)} || (${label(object, mark)} != '' && ${label(object, 'cde.dev/server')} == '')`;
  const enforced = label('object', 'pod-security.kubernetes.io/enforce');
  const mayDeleteClaims = (where: string) =>
    `authorizer.group('').resource('persistentvolumeclaims').namespace(${where}).check('delete').allowed()`;
  return [
    ...policy(
      'namespaces',
      [{ group: '', resource: 'namespaces', operations: ['CREATE', 'UPDATE', 'DELETE'] }],
      [
        {
          expression: `request.operation == 'CREATE' || ${isOurs('oldObject', 'cde.dev/managed')}`,
          message: 'cde changes and deletes namespaces of its own workspaces only',
        },
        {
          expression: `request.operation != 'CREATE' || object.metadata.name.startsWith('cde-')`,
          message: 'names of namespaces that cde creates start with cde-',
        },
        {
          expression: `request.operation == 'DELETE' || (${label('object', 'cde.dev/server')} == ${quoted(server)} && ${label('object', 'cde.dev/managed')} == 'true')`,
          message: `cde labels its namespaces cde.dev/managed=true and cde.dev/server=${server}`,
        },
        {
          expression: `request.operation == 'DELETE' || ${enforced} in [${levels.map(quoted).join(', ')}] || (request.operation == 'UPDATE' && ${enforced} == ${label('oldObject', 'pod-security.kubernetes.io/enforce')})`,
          messageExpression: `'podSecurity: ' + ${enforced} + ' is not permitted for workspaces on this cluster, at most ${podSecurity}: workspaces.podSecurity of the chart, or --pod-security of cde cluster role'`,
        },
      ],
    ),
    ...policy(
      'rolebindings',
      [{ group: rbac, resource: 'rolebindings', operations: ['CREATE', 'UPDATE', 'DELETE'] }],
      [
        {
          expression: `${label('namespaceObject', 'cde.dev/server')} == ${quoted(server)}`,
          message: 'cde changes role bindings in namespaces of its own workspaces only',
        },
      ],
    ),
    ...policy(
      'volumes',
      [{ group: '', resource: 'persistentvolumes', operations: ['UPDATE', 'DELETE'] }],
      [
        {
          expression: `${isOurs('oldObject', 'cde.dev/home')} || (has(oldObject.spec.claimRef) && ${mayDeleteClaims('oldObject.spec.claimRef.namespace')})`,
          message: 'cde changes and deletes volumes of its own workspaces only',
        },
      ],
    ),
    ...policy(
      'snapshots',
      [
        {
          group: 'snapshot.storage.k8s.io',
          resource: 'volumesnapshotcontents',
          operations: ['UPDATE', 'DELETE'],
        },
      ],
      [
        {
          expression: `${isOurs('oldObject', 'cde.dev/home')} || ${mayDeleteClaims('oldObject.spec.volumeSnapshotRef.namespace')}`,
          message: 'cde changes and deletes snapshots of its own workspaces only',
        },
      ],
    ),
  ];
}

/** All objects, including the service account and its namespace. */
export function roleObjects(options: RoleOptions) {
  const { namespace, serviceAccount, copySecrets } = options;
  const subjects = [{ kind: 'ServiceAccount', name: serviceAccount, namespace }];
  const role = `cde:workspaces:${namespace}:${serviceAccount}`;
  const server = `cde:server:${namespace}:${serviceAccount}`;
  const byNamespace = new Map<string, string[]>();
  for (const each of copySecrets) {
    const [where = '', name = ''] = each.split('/');
    byNamespace.set(where, [...(byNamespace.get(where) ?? []), name]);
  }
  const clusterRole = (name: string, rules: object[]) => ({
    apiVersion: `${rbac}/v1`,
    kind: 'ClusterRole',
    metadata: { name },
    rules,
  });
  return [
    { apiVersion: 'v1', kind: 'Namespace', metadata: { name: namespace } },
    { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: serviceAccount, namespace } },
    // The policies first, so that they apply before any permission is granted.
    ...policies(options),
    clusterRole(server, clusterRules(role)),
    clusterRole(role, workspaceRules()),
    {
      apiVersion: `${rbac}/v1`,
      kind: 'ClusterRoleBinding',
      metadata: { name: server },
      roleRef: { apiGroup: rbac, kind: 'ClusterRole', name: server },
      subjects,
    },
    ...[...byNamespace].flatMap(([where, names]) => [
      {
        apiVersion: `${rbac}/v1`,
        kind: 'Role',
        metadata: { name: `${server}:copy`, namespace: where },
        rules: [rule('', ['secrets'], ['get'], names)],
      },
      {
        apiVersion: `${rbac}/v1`,
        kind: 'RoleBinding',
        metadata: { name: `${server}:copy`, namespace: where },
        roleRef: { apiGroup: rbac, kind: 'Role', name: `${server}:copy` },
        subjects,
      },
    ]),
  ];
}
