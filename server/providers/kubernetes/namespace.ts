import type { KubernetesSection } from '@cde/api/templates.ts';
import type { AgentLaunch, WorkspaceSpec } from '../provider.ts';
import type { KubeObject } from './client.ts';
import { labels, labelValue } from './names.ts';
import { resourcesOf, workspacePod } from './pod.ts';

/** Pods of a namespace, where the template names no number. */
const usualPods = 50;
const usualHome = '10Gi';

export interface NamespaceOptions {
  namespace: string;
  installation: string;
  agentImage: string;
  agentPullPolicy?: string;
  /** The volume that the home's claim is bound to, when there is one already. */
  homeVolume?: { name: string; size: string; storageClass: string } | null;
  /** Pull secrets and the like, read from the cluster: copied into the namespace. */
  copies?: KubeObject[];
}

/**
 * Everything that a rendered template is in a cluster, in the order in which it is applied: what later ones
 * need comes before them, and the pod last.
 */
export function renderNamespace(
  spec: WorkspaceSpec,
  launch: AgentLaunch,
  options: NamespaceOptions,
): KubeObject[] {
  const section = spec.template.kubernetes as KubernetesSection;
  const { namespace } = options;
  const own = {
    [labels.managed]: 'true',
    [labels.installation]: options.installation,
    [labels.workspace]: spec.workspaceId,
    [labels.owner]: labelValue(spec.owner),
    [labels.name]: labelValue(spec.name),
  };
  const make = (
    apiVersion: string,
    kind: string,
    name: string,
    rest: object,
    more: object = {},
  ): KubeObject => ({
    apiVersion,
    kind,
    ...rest,
    metadata: { name, namespace, labels: { ...own }, ...more },
  });

  const pod = workspacePod(spec, section, launch, options);
  const { quota } = section;
  return [
    {
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: {
        name: namespace,
        labels: {
          ...own,
          'pod-security.kubernetes.io/enforce': section.podSecurity,
          'pod-security.kubernetes.io/warn': section.podSecurity,
        },
      },
    },
    make('v1', 'ServiceAccount', 'developer', { automountServiceAccountToken: true }),
    // Admin of this namespace and of nothing else; Kubernetes' admin may not change quotas.
    make('rbac.authorization.k8s.io/v1', 'RoleBinding', 'developer', {
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'admin' },
      subjects: [{ kind: 'ServiceAccount', name: 'developer', namespace }],
    }),
    make('v1', 'ResourceQuota', 'cde', {
      spec: {
        hard: {
          pods: String(quota.pods ?? usualPods),
          ...(quota.cpus !== undefined && { 'limits.cpu': String(quota.cpus) }),
          ...(quota.memory !== undefined && { 'limits.memory': String(quota.memory) }),
          ...(quota.storage !== undefined && { 'requests.storage': String(quota.storage) }),
        },
      },
    }),
    // What names no limits gets these, or a quota would refuse it.
    make('v1', 'LimitRange', 'cde', {
      spec: {
        limits: [
          {
            type: 'Container',
            default: { cpu: '1', memory: '1Gi' },
            defaultRequest: { cpu: '50m', memory: '128Mi' },
          },
        ],
      },
    }),
    make('networking.k8s.io/v1', 'NetworkPolicy', 'cde', { spec: network(section) }),
    make('v1', 'Secret', 'cde-agent', { type: 'Opaque', stringData: { token: launch.token } }),
    ...(options.copies ?? []).map((copy) =>
      make('v1', 'Secret', copy.metadata.name, { type: copy.type, data: copy.data }),
    ),
    make(
      'v1',
      'PersistentVolumeClaim',
      'home',
      {
        spec: {
          accessModes: ['ReadWriteOnce'],
          resources: {
            requests: { storage: options.homeVolume?.size ?? spec.template.home.size ?? usualHome },
          },
          ...(options.homeVolume
            ? { volumeName: options.homeVolume.name, storageClassName: options.homeVolume.storageClass }
            : section.storageClass && { storageClassName: section.storageClass }),
        },
      },
      { labels: { ...own, [labels.role]: 'home' } },
    ),
    ...section.services.flatMap((service) => serviceObjects(service, make)),
    ...(spec.template.manifests ?? []).map((manifest) => adminObject(manifest as KubeObject, namespace, own)),
    make('apps/v1', 'StatefulSet', 'workspace', {
      spec: {
        serviceName: 'workspace',
        replicas: 1,
        selector: { matchLabels: { app: 'workspace' } },
        template: {
          ...pod,
          metadata: {
            ...pod.metadata,
            labels: { ...own, ...(pod.metadata as { labels: object }).labels },
          },
        },
      },
    }),
  ];
}

/** Nothing from other namespaces comes in; out goes everything, or only what is needed. */
function network(section: KubernetesSection): object {
  const dns = {
    ports: [
      { protocol: 'UDP', port: 53 },
      { protocol: 'TCP', port: 53 },
    ],
  };
  const inside = { to: [{ podSelector: {} }] };
  // Clouds hand out credentials of the node at this address.
  const world = {
    to: [{ ipBlock: { cidr: '0.0.0.0/0', except: ['169.254.169.254/32'] } }, { ipBlock: { cidr: '::/0' } }],
  };
  // The server and the satellites: addresses that only a rule on ports can name.
  const control = {
    ports: [443, 80, 7080, 7090].map((port) => ({ protocol: 'TCP', port })),
    to: world.to,
  };
  return {
    podSelector: {},
    policyTypes: ['Ingress', 'Egress'],
    ingress: [{ from: [{ podSelector: {} }] }],
    egress: section.egress === 'all' ? [dns, inside, world] : [dns, inside, control],
  };
}

type Make = (apiVersion: string, kind: string, name: string, rest: object, more?: object) => KubeObject;

/** A service of the short form: its pod, its volume, its name in DNS. */
function serviceObjects(service: KubernetesSection['services'][number], make: Make): KubeObject[] {
  const app = `service-${service.name}`;
  const claim = `${service.name}-data`;
  return [
    ...(service.storage
      ? [
          make('v1', 'PersistentVolumeClaim', claim, {
            spec: {
              accessModes: ['ReadWriteOnce'],
              resources: { requests: { storage: String(service.storage.size) } },
            },
          }),
        ]
      : []),
    make('apps/v1', 'Deployment', service.name, {
      spec: {
        replicas: 1,
        // Two pods cannot have one volume.
        strategy: { type: 'Recreate' },
        selector: { matchLabels: { app } },
        template: {
          metadata: { labels: { app } },
          spec: {
            enableServiceLinks: false,
            containers: [
              {
                name: service.name,
                image: service.image,
                ...(service.command && { command: service.command }),
                ...(service.args && { args: service.args }),
                env: Object.entries(service.env).map(([name, value]) => ({ name, value: String(value) })),
                ports: service.ports.map((port) => ({ containerPort: Number(port) })),
                resources: resourcesOf(service),
                ...(service.storage && {
                  volumeMounts: [{ name: 'data', mountPath: service.storage.path }],
                }),
              },
            ],
            ...(service.storage && {
              volumes: [{ name: 'data', persistentVolumeClaim: { claimName: claim } }],
            }),
          },
        },
      },
    }),
    ...(service.ports.length > 0
      ? [
          make('v1', 'Service', service.name, {
            spec: {
              selector: { app },
              ports: service.ports.map((port) => ({
                name: `p${port}`,
                port: Number(port),
                targetPort: Number(port),
              })),
            },
          }),
        ]
      : []),
  ];
}

/** A manifest of the admin's own, in our namespace and with our labels. */
function adminObject(manifest: KubeObject, namespace: string, own: Record<string, string>): KubeObject {
  return {
    ...manifest,
    metadata: { ...manifest.metadata, namespace, labels: { ...manifest.metadata.labels, ...own } },
  };
}
