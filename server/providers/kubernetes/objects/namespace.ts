import type { KubernetesSection } from '@cde/api/templates.ts';
import type { AgentLaunch, WorkspaceSpec } from '../../provider.ts';
import type { KubeObject } from '../api/client.ts';
import { labels, labelValue } from '../api/names.ts';
import { builderObjects } from './builder.ts';
import { MoveFailure } from './failure.ts';
import type { MakeObject } from './make.ts';
import { type Destination, networkPolicy } from './network.ts';
import { workspacePod } from './pod.ts';
import { serviceObjects } from './services.ts';

/** Pods of a namespace, where the template names no number. */
const defaultPodQuota = 50;
const defaultHomeSize = '10Gi';

export interface NamespaceOptions {
  namespace: string;
  installation: string;
  /** Of a server with the smaller role, its label: grants.ts. */
  server?: string | undefined;
  agentImage: string;
  agentPullPolicy?: string;
  /** The cluster lets a pod have a hostname that is not its own name. */
  supportsHostnameOverride?: boolean;
  /** The volume that the home's claim is bound to, when there is one already. */
  homeVolume?: { name: string; size: string; storageClass: string } | null;
  /** Pull secrets and the like, read from the cluster: copied into the namespace. */
  copies?: KubeObject[];
  /** Where the server and the satellites are, for a template whose egress is `namespace`. */
  reach?: readonly Destination[];
  /** Of a builder, where the template names none. */
  builderImage?: string;
  /** Where its registries are, for a template whose egress is `namespace`. */
  builderReach?: readonly Destination[];
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
  const own = ownLabels(spec, options.installation);
  const make: MakeObject = (apiVersion, kind, name, rest, more = {}) => ({
    apiVersion,
    kind,
    ...rest,
    metadata: { name, namespace, labels: { ...own }, ...more },
  });

  const pod = workspacePod(spec, section, launch, options);
  const { quota } = section;
  const manifests = (spec.template.manifests ?? []) as KubeObject[];
  return [
    namespaceObject(spec, options),
    make('v1', 'ServiceAccount', 'developer', { automountServiceAccountToken: true }),
    // Admin of this namespace and of nothing else; Kubernetes' admin may not change quotas.
    make('rbac.authorization.k8s.io/v1', 'RoleBinding', 'developer', {
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'admin' },
      subjects: [{ kind: 'ServiceAccount', name: 'developer', namespace }],
    }),
    quotaObject(spec, options),
    // What names no limits would be refused where the quota counts them; elsewhere nobody wants limits by surprise.
    make('v1', 'LimitRange', 'cde', {
      spec: {
        limits: [
          {
            type: 'Container',
            defaultRequest: { cpu: '50m', memory: '128Mi' },
            ...((quota.cpus !== undefined || quota.memory !== undefined) && {
              default: {
                ...(quota.cpus !== undefined && { cpu: '1' }),
                ...(quota.memory !== undefined && { memory: '1Gi' }),
              },
            }),
          },
        ],
      },
    }),
    make('networking.k8s.io/v1', 'NetworkPolicy', 'cde', {
      spec: networkPolicy(section.egress, options.reach ?? []),
    }),
    make('v1', 'Secret', 'cde-agent', {
      type: 'Opaque',
      data: { token: Buffer.from(launch.token).toString('base64') },
    }),
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
            requests: { storage: options.homeVolume?.size ?? spec.template.home.size ?? defaultHomeSize },
          },
          ...(options.homeVolume
            ? { volumeName: options.homeVolume.name, storageClassName: options.homeVolume.storageClass }
            : section.storageClass && { storageClassName: section.storageClass }),
        },
      },
      { labels: { ...own, [labels.role]: 'home' } },
    ),
    ...section.services.flatMap((service) => serviceObjects(service, section, make, own)),
    ...builderObjects(section, make, { image: options.builderImage, reach: options.builderReach, own }),
    ...manifests.map((manifest) => manifestObject(manifest, namespace, own)),
    // By this name services and what the manifests bring reach the workspace.
    ...(section.services.length + manifests.length > 0
      ? [make('v1', 'Service', 'workspace', { spec: { clusterIP: 'None', selector: { app: 'workspace' } } })]
      : []),
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

type NamespaceTarget = Pick<NamespaceOptions, 'namespace' | 'installation' | 'server'>;

/** What tells the objects of a workspace from all others. */
export const ownLabels = (spec: WorkspaceSpec, installation: string): Record<string, string> => ({
  [labels.managed]: 'true',
  [labels.installation]: installation,
  [labels.workspace]: spec.workspaceId,
  [labels.owner]: labelValue(spec.owner),
  [labels.name]: labelValue(spec.name),
});

/** The Namespace of a workspace. */
export function namespaceObject(
  spec: WorkspaceSpec,
  { namespace, installation, server }: NamespaceTarget,
): KubeObject {
  const { podSecurity } = spec.template.kubernetes as KubernetesSection;
  return {
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: {
      name: namespace,
      labels: {
        ...ownLabels(spec, installation),
        ...(server && { [labels.server]: server }),
        'pod-security.kubernetes.io/enforce': podSecurity,
        'pod-security.kubernetes.io/warn': podSecurity,
      },
    },
  };
}

/** Its ResourceQuota. */
export function quotaObject(spec: WorkspaceSpec, { namespace, installation }: NamespaceTarget): KubeObject {
  const { quota } = spec.template.kubernetes as KubernetesSection;
  return {
    apiVersion: 'v1',
    kind: 'ResourceQuota',
    metadata: { name: 'cde', namespace, labels: ownLabels(spec, installation) },
    spec: {
      hard: {
        pods: String(quota.pods ?? defaultPodQuota),
        ...(quota.cpus !== undefined && { 'limits.cpu': String(quota.cpus) }),
        ...(quota.memory !== undefined && { 'limits.memory': String(quota.memory) }),
        ...(quota.storage !== undefined && { 'requests.storage': String(quota.storage) }),
      },
    },
  };
}

/**
 * A manifest of the admin's own, in our namespace and with our labels. Publishing has refused what names another
 * namespace; a version from before that rule, or from elsewhere, is refused here.
 */
function manifestObject(manifest: KubeObject, namespace: string, own: Record<string, string>): KubeObject {
  const { kind, metadata } = manifest;
  if (metadata.namespace !== undefined && metadata.namespace !== namespace)
    throw new MoveFailure({
      code: 'manifest-foreign',
      message: `The ${kind} ${metadata.name} of the template names the namespace ${metadata.namespace}.`,
      hint: "Leave metadata.namespace out: all of a template lies in the workspace's own namespace.",
      fault: 'user',
    });
  return { ...manifest, metadata: { ...metadata, namespace, labels: { ...metadata.labels, ...own } } };
}
