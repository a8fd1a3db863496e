import type { KubeClient } from './client.ts';
import type { Kube } from './models.ts';
import type { NodeView } from './node-view.ts';

/** A cluster of the server's registry, with its credentials decrypted. `revision` increases when they change. */
export interface ClusterRecord {
  id: string;
  name: string;
  region: string;
  labels: Record<string, string>;
  isDefault: boolean;
  /** A kubeconfig (YAML), or the service account of our own pod. */
  credentials: { kind: 'kubeconfig'; text: string } | { kind: 'in-cluster' };
  publicEndpoint: string | null;
  revision: number;
}

/** Where clusters come from: the database, or a list in tests. */
export interface ClusterSource {
  list(): Promise<ClusterRecord[]>;
  /** Records the state of a cluster: on every change, and otherwise at most every 30 s. */
  report(
    id: string,
    state: { state: 'ready' | 'away'; reason: string | null; version: string | null; endpoint: string },
  ): Promise<void>;
}

/** The watched kinds. One watch per kind covers all workspaces of a cluster. */
export type WatchedKind =
  | 'Namespace'
  | 'Pod'
  | 'PersistentVolumeClaim'
  | 'StatefulSet'
  | 'ResourceQuota'
  | 'LimitRange'
  | 'NetworkPolicy'
  | 'RoleBinding'
  | 'ServiceAccount'
  | 'Event';

/** The objects that the watches of one cluster have seen. Reading costs no call. */
export interface ClusterView {
  /** True once every kind was listed. Before, and while the cluster is unreachable, absence proves nothing. */
  readonly synced: boolean;
  get<Kind extends WatchedKind>(kind: Kind, namespace: string, name: string): Kube<Kind> | null;
  /** Of one namespace; events are at most 50, newest last. A namespace itself: `get('Namespace', '', name)`. */
  list<Kind extends WatchedKind>(kind: Kind, namespace: string): Kube<Kind>[];
  /** All namespaces of this installation. */
  namespaces(): Kube<'Namespace'>[];
  /** Stores the result of a write, so that the next read does not lag behind it. Ignores kinds that are not watched. */
  upsert(object: { kind: string }): void;
  /** Calls back with the namespace in which an object changed. */
  onChange(listener: (namespace: string, kind: WatchedKind) => void): void;
}

/** A server with the smaller role has rights only in its own namespaces; it grants them to itself on creation. */
export interface Identity {
  namespace: string;
  name: string;
  /** The value of the label that the admission policy requires on everything it changes. */
  label: string;
  /** The ClusterRole that it can bind, besides `admin`. */
  role: string;
}

export interface Grants {
  /** Null: the credentials have rights in all namespaces. */
  identity(): Promise<Identity | null>;
  /**
   * Grants the server its rights in one of our namespaces, and returns once they take effect. True if they are new:
   * other replicas of the API server may not see them yet.
   */
  ensure(namespace: string, more?: Record<string, string>): Promise<boolean>;
}

export interface Connection {
  readonly record: ClusterRecord;
  readonly client: KubeClient;
  readonly view: ClusterView;
  readonly nodes: NodeView;
  readonly state: 'connecting' | 'ready' | 'away';
  /** Of Kubernetes, such as `v1.35.4`; null until it was read. */
  readonly version: string | null;
  /** Distinguishes our objects from those of another installation on the same cluster. */
  readonly installation: string;
  /** Our own rights there. */
  readonly grants: Grants;
  /** Why it is unreachable, in one sentence. */
  readonly reason: string | null;
}

export interface Connections {
  /** By name; null when there is no such cluster. */
  get(name: string): Connection | null;
  all(): Connection[];
  /** The cluster that a template selects by name, by labels, or as the default. Null when none matches. */
  choose(selector: string | { labels: Record<string, string> } | undefined): Connection | null;
  /** Reads the source now, in addition to every few seconds. */
  refresh(): Promise<void>;
  onChange(listener: (connection: Connection, namespace: string, kind: WatchedKind) => void): void;
  /** Calls back when a node of any cluster was added or changed. */
  onNode(
    listener: (connection: Connection, ...change: Parameters<Parameters<NodeView['onChange']>[0]>) => void,
  ): void;
  close(): Promise<void>;
}
