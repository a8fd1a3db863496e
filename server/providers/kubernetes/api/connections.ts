import type { KubeClient, KubeObject } from './client.ts';

/** A cluster as the server's registry has it, credentials opened. `revision` counts up when they change. */
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

/** Where clusters come from: the database; in tests a list. */
export interface ClusterSource {
  list(): Promise<ClusterRecord[]>;
  /** Told what became of a cluster, at most once per change and 30 s. */
  report(
    id: string,
    state: { state: 'ready' | 'away'; reason: string | null; version: string | null; endpoint: string },
  ): Promise<void>;
}

/** The kinds that are watched, one watch each for all workspaces of a cluster. */
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

/** What the watches of one cluster know. Reads cost no call. */
export interface ClusterView {
  /** True once every kind was listed; until then, and while the cluster is away, nothing may be concluded. */
  readonly synced: boolean;
  get(kind: WatchedKind, namespace: string, name: string): KubeObject | null;
  /** Of a namespace; of events the newest last, at most 50. A namespace itself: `get('Namespace', '', name)`. */
  list(kind: WatchedKind, namespace: string): KubeObject[];
  /** All namespaces of this installation. */
  namespaces(): KubeObject[];
  /** Takes what a call has just returned, so that the next read does not lag behind our own writes. */
  upsert(object: KubeObject): void;
  /** Called with the namespace in which something changed. */
  onChange(listener: (namespace: string, kind: WatchedKind) => void): void;
}

/** A server with the smaller role has rights in its own namespaces only, which it gives itself as it makes them. */
export interface Identity {
  namespace: string;
  name: string;
  /** The value of the label on everything that the admission policy lets it change. */
  label: string;
  /** The ClusterRole that it may bind, beside `admin`. */
  role: string;
}

export interface Grants {
  /** Null: the credentials have rights in all namespaces. */
  identity(): Promise<Identity | null>;
  /**
   * Gives the server its rights in a namespace of ours; returns when they are in force. True if they are new: other
   * replicas of the API server may not know of them yet.
   */
  ensure(namespace: string, more?: Record<string, string>): Promise<boolean>;
}

export interface Connection {
  readonly record: ClusterRecord;
  readonly client: KubeClient;
  readonly view: ClusterView;
  readonly state: 'connecting' | 'ready' | 'away';
  /** Of Kubernetes, such as `v1.35.4`; null until the cluster has told it. */
  readonly version: string | null;
  /** Tells our objects from another installation's on the same cluster. */
  readonly installation: string;
  /** Our own rights there. */
  readonly grants: Grants;
  /** One sentence, when it is away. */
  readonly reason: string | null;
}

export interface Connections {
  /** By name; null when there is no such cluster. */
  get(name: string): Connection | null;
  all(): Connection[];
  /** By a template's choice: a name, labels, or the default. Null when none fits. */
  choose(wanted: string | { labels: Record<string, string> } | undefined): Connection | null;
  /** Reads the source again now (it is read every few seconds besides). */
  refresh(): Promise<void>;
  onChange(listener: (connection: Connection, namespace: string, kind: WatchedKind) => void): void;
  close(): Promise<void>;
}
