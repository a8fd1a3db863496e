import type { AgentLaunch, WorkspaceSpec } from '../../provider.ts';
import type { Kube, KubeObject } from '../api/models.ts';
import { annotations, labels, labelValue } from '../api/names.ts';
import { builderObjects } from './builder.ts';
import { StepFailure } from './failure.ts';
import { makeObjectsIn } from './make.ts';
import { type Destination, networkPolicy } from './network.ts';
import { workspacePod } from './pod.ts';
import { sectionOf } from './section.ts';
import { serviceObjects } from './services.ts';

/** If the template sets no quota of pods. */
const defaultPodQuota = 50;
const defaultHomeSize = '10Gi';

export interface NamespaceOptions {
  namespace: string;
  installation: string;
  /** The label of a server with the smaller role: see grants.ts. */
  server?: string | undefined;
  agentImage: string;
  agentPullPolicy?: string;
  /** Certificate authorities that agents trust beside the public ones, in PEM. */
  agentCa?: string;
  /** Whether the cluster supports `hostnameOverride` of a pod. */
  supportsHostnameOverride?: boolean;
  /** The existing volume that the home's claim is bound to. */
  homeVolume?: { name: string; size: string; storageClass: string } | null;
  /** Secrets of the cluster that are copied into the namespace, such as pull secrets. */
  copies?: Kube<'Secret'>[];
  /** The server and the satellites, for a template whose egress is `namespace`. */
  reach?: readonly Destination[];
  /** Of a builder, if the template names none. */
  builderImage?: string;
  /** The builder's registries, for a template whose egress is `namespace`. */
  builderReach?: readonly Destination[];
}

/**
 * All objects of a rendered template, in the order in which they are applied: dependencies first, and the pod last.
 */
export function renderNamespace(
  spec: WorkspaceSpec,
  launch: AgentLaunch,
  options: NamespaceOptions,
): KubeObject[] {
  const section = sectionOf(spec);
  const { namespace } = options;
  const own = ownLabels(spec, options.installation);
  const make = makeObjectsIn(namespace, own);

  const pod = workspacePod(spec, section, launch, options);
  const { quota } = section;
  const manifests = spec.template.manifests ?? [];
  return [
    namespaceObject(spec, options),
    make('ServiceAccount', 'developer', { automountServiceAccountToken: true }),
    // Admin of this namespace only. The ClusterRole `admin` cannot change quotas.
    make('RoleBinding', 'developer', {
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'admin' },
      subjects: [{ kind: 'ServiceAccount', name: 'developer', namespace }],
    }),
    quotaObject(spec, options),
    // A quota rejects containers without limits, so they get defaults; without a quota they would be a surprise.
    make('LimitRange', 'cde', {
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
    make('NetworkPolicy', 'cde', {
      spec: networkPolicy(section.egress, options.reach ?? []),
    }),
    make('Secret', 'cde-agent', {
      type: 'Opaque',
      data: { token: Buffer.from(launch.token).toString('base64') },
    }),
    ...(options.copies ?? []).map((copy) =>
      make('Secret', copy.metadata.name, { type: copy.type, data: copy.data }),
    ),
    make(
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
      {
        labels: { ...own, [labels.role]: 'home' },
        annotations: { [annotations.build]: launch.buildId },
      },
    ),
    ...section.services.flatMap((service) => serviceObjects(service, section, make, own)),
    ...builderObjects(section, make, { image: options.builderImage, reach: options.builderReach, own }),
    ...manifests.map((manifest) => manifestObject(manifest, namespace, own)),
    // The DNS name by which services and the template's manifests reach the workspace.
    ...(section.services.length + manifests.length > 0
      ? [make('Service', 'workspace', { spec: { clusterIP: 'None', selector: { app: 'workspace' } } })]
      : []),
    make('StatefulSet', 'workspace', {
      spec: {
        serviceName: 'workspace',
        replicas: 1,
        selector: { matchLabels: { app: 'workspace' } },
        template: {
          ...pod,
          metadata: {
            ...pod.metadata,
            labels: { ...own, ...pod.metadata.labels },
          },
        },
      },
    }),
  ];
}

type NamespaceTarget = Pick<NamespaceOptions, 'namespace' | 'installation' | 'server'>;

/** The labels of a workspace's objects. */
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
): Kube<'Namespace'> {
  const { podSecurity } = sectionOf(spec);
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

/** The ResourceQuota of a workspace's namespace. */
export function quotaObject(
  spec: WorkspaceSpec,
  { namespace, installation }: NamespaceTarget,
): Kube<'ResourceQuota'> {
  const { quota } = sectionOf(spec);
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
 * A manifest of the template, in the workspace's namespace and with its labels. Publishing rejects a manifest that
 * names another namespace; versions published before that rule are rejected here.
 */
function manifestObject(manifest: KubeObject, namespace: string, own: Record<string, string>): KubeObject {
  const { kind, metadata } = manifest;
  if (metadata.namespace !== undefined && metadata.namespace !== namespace)
    throw new StepFailure({
      code: 'manifest-foreign',
      message: `The ${kind} ${metadata.name} of the template names the namespace ${metadata.namespace}.`,
      hint: "Remove metadata.namespace: all objects of a template are created in the workspace's namespace.",
      fault: 'user',
    });
  return { ...manifest, metadata: { ...metadata, namespace, labels: { ...metadata.labels, ...own } } };
}
