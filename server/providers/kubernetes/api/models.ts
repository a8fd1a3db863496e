import type {
  CoreV1Event,
  V1ClusterRole,
  V1ConfigMap,
  V1CronJob,
  V1DaemonSet,
  V1Deployment,
  V1Job,
  V1LimitRange,
  V1Namespace,
  V1NetworkPolicy,
  V1Node,
  V1ObjectMeta,
  V1PersistentVolume,
  V1PersistentVolumeClaim,
  V1Pod,
  V1ReplicaSet,
  V1ResourceQuota,
  V1Role,
  V1RoleBinding,
  V1Secret,
  V1SelfSubjectAccessReview,
  V1SelfSubjectReview,
  V1Service,
  V1ServiceAccount,
  V1StatefulSet,
  V1StorageClass,
} from '@kubernetes/client-node';

/**
 * A model of @kubernetes/client-node as plain JSON. That client parses every reply into class instances, so its models
 * declare times as Date, and fields named like reserved words with an underscore (`_from`). We keep the JSON, where
 * times are strings and names are as Kubernetes documents them. This type is the only place that knows the difference.
 */
export type AsJson<T> = T extends Date
  ? string
  : T extends (infer Item)[]
    ? AsJson<Item>[]
    : T extends object
      ? { [Key in keyof T as Key extends `_${infer Name}` ? Name : Key]: AsJson<T[Key]> }
      : T;

/** In a list, and in what a server stored, an object always has a name. */
export type KubeMetadata = AsJson<V1ObjectMeta> & { name: string };

/** An object of a kind that has no model, or of any kind. */
export interface KubeObject {
  apiVersion: string;
  kind: string;
  metadata: KubeMetadata;
  [key: string]: unknown;
}

/** Kinds that the CSI snapshot controller defines: https://github.com/kubernetes-csi/external-snapshotter */
interface VolumeSnapshot {
  spec?: { volumeSnapshotClassName?: string; source: { persistentVolumeClaimName?: string } };
  status?: {
    readyToUse?: boolean;
    boundVolumeSnapshotContentName?: string;
    error?: { message?: string };
  };
}
interface VolumeSnapshotContent {
  spec?: { driver?: string; deletionPolicy?: 'Delete' | 'Retain' };
  status?: { readyToUse?: boolean; snapshotHandle?: string };
}
interface VolumeSnapshotClass {
  driver?: string;
  deletionPolicy?: 'Delete' | 'Retain';
}

/** The kinds that we read or write, with their models. */
export interface KubeModels {
  Namespace: V1Namespace;
  Node: V1Node;
  PersistentVolume: V1PersistentVolume;
  PersistentVolumeClaim: V1PersistentVolumeClaim;
  Pod: V1Pod;
  Secret: V1Secret;
  Service: V1Service;
  ServiceAccount: V1ServiceAccount;
  ConfigMap: V1ConfigMap;
  Event: CoreV1Event;
  ResourceQuota: V1ResourceQuota;
  LimitRange: V1LimitRange;
  StatefulSet: V1StatefulSet;
  Deployment: V1Deployment;
  ReplicaSet: V1ReplicaSet;
  DaemonSet: V1DaemonSet;
  Job: V1Job;
  CronJob: V1CronJob;
  NetworkPolicy: V1NetworkPolicy;
  Role: V1Role;
  RoleBinding: V1RoleBinding;
  ClusterRole: V1ClusterRole;
  StorageClass: V1StorageClass;
  SelfSubjectReview: V1SelfSubjectReview;
  SelfSubjectAccessReview: V1SelfSubjectAccessReview;
  VolumeSnapshot: VolumeSnapshot;
  VolumeSnapshotContent: VolumeSnapshotContent;
  VolumeSnapshotClass: VolumeSnapshotClass;
}
export type ModelKind = keyof KubeModels;

/** The API version in which we use each kind. */
export const apiVersions: { readonly [Kind in ModelKind]: string } = {
  Namespace: 'v1',
  Node: 'v1',
  PersistentVolume: 'v1',
  PersistentVolumeClaim: 'v1',
  Pod: 'v1',
  Secret: 'v1',
  Service: 'v1',
  ServiceAccount: 'v1',
  ConfigMap: 'v1',
  Event: 'v1',
  ResourceQuota: 'v1',
  LimitRange: 'v1',
  StatefulSet: 'apps/v1',
  Deployment: 'apps/v1',
  ReplicaSet: 'apps/v1',
  DaemonSet: 'apps/v1',
  Job: 'batch/v1',
  CronJob: 'batch/v1',
  NetworkPolicy: 'networking.k8s.io/v1',
  Role: 'rbac.authorization.k8s.io/v1',
  RoleBinding: 'rbac.authorization.k8s.io/v1',
  ClusterRole: 'rbac.authorization.k8s.io/v1',
  StorageClass: 'storage.k8s.io/v1',
  SelfSubjectReview: 'authentication.k8s.io/v1',
  SelfSubjectAccessReview: 'authorization.k8s.io/v1',
  VolumeSnapshot: 'snapshot.storage.k8s.io/v1',
  VolumeSnapshotContent: 'snapshot.storage.k8s.io/v1',
  VolumeSnapshotClass: 'snapshot.storage.k8s.io/v1',
};

/** An object of a kind that has a model: `Kube<'Pod'>`. */
export type Kube<Kind extends ModelKind> = Kind extends ModelKind
  ? { apiVersion: string; kind: Kind; metadata: KubeMetadata } & Omit<
      AsJson<KubeModels[Kind]>,
      'apiVersion' | 'kind' | 'metadata'
    >
  : never;

/** What a call returns for a kind: its model, or any object if the kind is only known at run time. */
export type KubeOf<Kind extends string> = Kind extends ModelKind ? Kube<Kind> : KubeObject;

/** Whether an object, such as one of a template's own manifests, is of this kind. */
export const isKind = <Kind extends ModelKind>(
  object: KubeObject,
  kind: Kind,
): object is Kube<Kind> & KubeObject => object.kind === kind && object.apiVersion === apiVersions[kind];

/** One of the parts of a spec or a status. */
export type ContainerStatus = NonNullable<NonNullable<Kube<'Pod'>['status']>['containerStatuses']>[number];
export type PodSpec = NonNullable<Kube<'Pod'>['spec']>;
export type Container = PodSpec['containers'][number];
export type SecurityContext = NonNullable<Container['securityContext']>;

/** Whether the condition of a pod, a node or a job is true. */
export const hasCondition = (
  object: { status?: { conditions?: { type: string; status: string }[] } },
  type: string,
): boolean => object.status?.conditions?.some((one) => one.type === type && one.status === 'True') ?? false;

/** The status of one of a pod's containers. */
export const containerStatus = (pod: Kube<'Pod'>, container: string): ContainerStatus | undefined =>
  pod.status?.containerStatuses?.find(({ name }) => name === container);
