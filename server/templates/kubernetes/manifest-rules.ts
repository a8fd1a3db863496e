import type { KubernetesSection, Manifest } from '@cde/api/template-file.ts';
import type { Path } from '../language/source.ts';
import { asMap, type Issue } from '../language/tree.ts';
import { podIssues } from './pod-security.ts';

/** Labels and annotations that mark what is ours. */
export const ownLabel = /^cde\.dev\//;

/** What the provider itself makes in the namespace, by kind: a manifest may not have these names. */
const reservedNames: Readonly<Record<string, readonly string[]>> = {
  StatefulSet: ['workspace', 'builder'],
  Deployment: ['workspace', 'builder'],
  Service: ['workspace', 'builder'],
  PersistentVolumeClaim: ['home', 'builder-cache'],
  ServiceAccount: ['developer', 'workspace', 'default'],
  Role: ['developer'],
  RoleBinding: ['developer', 'cde-server', 'cde-server-admin'],
  Secret: ['cde-agent'],
  ConfigMap: ['builder'],
  ResourceQuota: ['cde'],
  LimitRange: ['cde'],
  NetworkPolicy: ['cde', 'cde-builder'],
};

/** Kinds that no namespace holds, by group; a kind of the same name in another group may well be of one. */
const clusterKinds: Readonly<Record<string, readonly string[]>> = {
  '': ['Namespace', 'Node', 'PersistentVolume', 'ComponentStatus'],
  'rbac.authorization.k8s.io': ['ClusterRole', 'ClusterRoleBinding'],
  'storage.k8s.io': ['StorageClass', 'CSIDriver', 'CSINode', 'VolumeAttachment', 'VolumeAttributesClass'],
  'snapshot.storage.k8s.io': ['VolumeSnapshotClass', 'VolumeSnapshotContent'],
  'apiextensions.k8s.io': ['CustomResourceDefinition'],
  'apiregistration.k8s.io': ['APIService'],
  'admissionregistration.k8s.io': [
    'MutatingWebhookConfiguration',
    'ValidatingWebhookConfiguration',
    'MutatingAdmissionPolicy',
    'MutatingAdmissionPolicyBinding',
    'ValidatingAdmissionPolicy',
    'ValidatingAdmissionPolicyBinding',
  ],
  'certificates.k8s.io': ['CertificateSigningRequest', 'ClusterTrustBundle'],
  'flowcontrol.apiserver.k8s.io': ['FlowSchema', 'PriorityLevelConfiguration'],
  'networking.k8s.io': ['IngressClass', 'IPAddress', 'ServiceCIDR'],
  'node.k8s.io': ['RuntimeClass'],
  policy: ['PodSecurityPolicy'],
  'resource.k8s.io': ['DeviceClass', 'ResourceSlice'],
  'scheduling.k8s.io': ['PriorityClass'],
  'gateway.networking.k8s.io': ['GatewayClass'],
  'cert-manager.io': ['ClusterIssuer'],
};

/** Whether the provider itself makes an object of this kind and name. */
export function isReserved(kind: string, name: string): boolean {
  return Object.hasOwn(reservedNames, kind) && reservedNames[kind]!.includes(name);
}

/** Why a template may not have a kind at all. */
export function rejectionReason(group: string, kind: string): { message: string; hint: string } | null {
  if (Object.hasOwn(clusterKinds, group) && clusterKinds[group]!.includes(kind)) {
    return {
      message: `a ${kind} does not belong to a namespace`,
      hint: 'a template makes what is in its own namespace; create this one on the cluster, once for all',
    };
  }
  if (group === '' && kind.endsWith('List')) {
    return { message: `a ${kind} is not taken apart`, hint: 'write its items as documents of their own' };
  }
  if (group === 'apps' && kind === 'DaemonSet') {
    return { message: 'a DaemonSet cannot be stopped with its workspace', hint: 'use a Deployment' };
  }
  if (group === '' && ['Event', 'Binding', 'Endpoints'].includes(kind)) {
    return { message: `a ${kind} is not for a template to make`, hint: 'remove it; Kubernetes makes it' };
  }
  if (['authentication.k8s.io', 'authorization.k8s.io'].includes(group)) {
    return { message: `a ${kind} is a question, and nothing that is kept`, hint: 'remove it' };
  }
  return null;
}

/**
 * What a manifest may not ask for. It looks at values, so it is called on the rendered manifest; texts that
 * still hold an expression are taken for right.
 */
export function manifestIssues(manifest: Manifest, section: KubernetesSection): Issue[] {
  const { apiVersion, kind, metadata } = manifest;
  const issues: Issue[] = [];
  const taken = (from: string) =>
    issues.push({
      path: ['metadata', 'name'],
      message: `the ${kind} "${metadata.name}" is that of ${from}`,
      hint: 'choose another name, or remove that',
    });
  const services = section.services.map(({ name }) => name);
  if (
    (['Deployment', 'Service'].includes(kind) && services.includes(metadata.name)) ||
    (kind === 'PersistentVolumeClaim' && services.some((name) => metadata.name === `${name}-data`))
  ) {
    taken('kubernetes.services');
  }
  // Copied into the namespace under their own names.
  const copies = [
    ...section.pullSecrets,
    ...(typeof section.builder === 'object' ? [section.builder.registrySecret] : []),
  ].map((secret) => secret?.split('/')[1]);
  if (kind === 'Secret' && copies.includes(metadata.name)) taken('a secret that is copied here');
  if (kind === 'RoleBinding') {
    const role = asMap(manifest.roleRef);
    if (role.kind === 'ClusterRole' && role.name === 'cluster-admin') {
      issues.push({
        path: ['roleRef', 'name'],
        message:
          'a template does not give cluster-admin, which may change its own quota and network policies',
        hint: 'bind admin, edit or view',
      });
    }
  }
  const pod = podAt(apiVersion, kind);
  if (pod && section.podSecurity !== 'privileged') {
    const spec = pod.reduce<unknown>((value, part) => asMap(value)[part as string], manifest);
    issues.push(...podIssues(asMap(spec), pod, section.podSecurity));
  }
  return issues;
}

/** Where a kind has its pod; null when it has none. */
export function podAt(apiVersion: string, kind: string): Path | null {
  switch (`${apiVersion.split('/')[0]} ${kind}`) {
    case 'v1 Pod':
      return ['spec'];
    case 'v1 PodTemplate':
      return ['template', 'spec'];
    case 'v1 ReplicationController':
    case 'apps Deployment':
    case 'apps StatefulSet':
    case 'apps ReplicaSet':
    case 'batch Job':
      return ['spec', 'template', 'spec'];
    case 'batch CronJob':
      return ['spec', 'jobTemplate', 'spec', 'template', 'spec'];
    default:
      return null;
  }
}
