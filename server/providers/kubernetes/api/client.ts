/** Anything that Kubernetes stores. */
export interface KubeObject {
  apiVersion: string;
  kind: string;
  metadata: {
    name: string;
    namespace?: string;
    uid?: string;
    resourceVersion?: string;
    generation?: number;
    creationTimestamp?: string;
    deletionTimestamp?: string;
    finalizers?: string[];
    labels?: Record<string, string>;
    annotations?: Record<string, string>;
    ownerReferences?: { kind: string; name: string; uid: string; controller?: boolean }[];
    [key: string]: unknown;
  };
  [key: string]: unknown;
}

/** A kind, and where to look for its objects. Without `namespace`: in all, or of the cluster itself. */
export interface KubeKind {
  apiVersion: string;
  kind: string;
  namespace?: string;
  /** A label selector: `cde.dev/managed=true`. */
  labels?: string;
  /** A field selector: `type=Warning`. */
  fields?: string;
}

export interface KubeRef {
  apiVersion: string;
  kind: string;
  namespace?: string;
  name: string;
}

/**
 * Why a call failed. `away`: no answer that tells anything about the objects (network, time-out, 5xx, 429):
 * nothing is concluded from it, and the call is made again later. Else `status` and Kubernetes' own `reason`
 * (`NotFound`, `Conflict`, `Forbidden`, `Invalid`, …) and `message`; `causes` names the fields.
 */
export class KubeError extends Error {
  readonly status: number;
  readonly reason: string;
  readonly unreachable: boolean;
  readonly causes: { field?: string; message: string; reason?: string }[];
  constructor(
    message: string,
    more: {
      status?: number;
      reason?: string;
      unreachableError?: boolean;
      causes?: { field?: string; message: string; reason?: string }[];
      cause?: unknown;
    } = {},
  ) {
    super(message, { cause: more.cause });
    this.name = 'KubeError';
    this.status = more.status ?? 0;
    this.reason = more.reason ?? '';
    this.unreachable = more.unreachableError ?? false;
    this.causes = more.causes ?? [];
  }
}

export interface WatchEvent {
  type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK';
  object: KubeObject;
}

/** The field manager of everything that we apply. */
export const fieldManager = 'cde';

/** The calls that the provider makes to one cluster. All reject with KubeError; none retries by itself. */
export interface KubeClient {
  /** The API server's URL. */
  readonly server: string;
  /** PEM of the authority that signed its certificate; null: a public one. */
  readonly certificateAuthority: string | null;
  /** Requests made so far, watches included (for bench/). */
  calls(): number;
  /** Server-side apply with our field manager; without `force` a field of someone else's is a Conflict. */
  apply(object: KubeObject, options?: { dryRun?: boolean; force?: boolean }): Promise<KubeObject>;
  /** Null when there is none. */
  get(ref: KubeRef): Promise<KubeObject | null>;
  /** All pages. */
  list(kind: KubeKind): Promise<KubeObject[]>;
  create(object: KubeObject): Promise<KubeObject>;
  /** A JSON merge patch. */
  patch(ref: KubeRef, patch: object, subresource?: 'scale' | 'status'): Promise<KubeObject>;
  /** False when there was none. */
  remove(
    ref: KubeRef,
    options?: { graceSeconds?: number; propagation?: 'Background' | 'Foreground' | 'Orphan'; uid?: string },
  ): Promise<boolean>;
  /** The last lines of a container's output. */
  logs(
    namespace: string,
    pod: string,
    options: { container: string; tailLines: number; previous?: boolean },
  ): Promise<string>;
  /** TokenRequest. */
  token(
    namespace: string,
    serviceAccount: string,
    seconds: number,
  ): Promise<{ token: string; expiresAt: Date }>;
  /** `v1.35.4` */
  version(): Promise<string>;
  /**
   * One watch of a kind from a resource version on, until it ends by itself (`seconds`) or `signal` ends it.
   * Rejects with KubeError when it breaks; status 410 when the resource version is too old.
   */
  watch(
    kind: KubeKind,
    options: { resourceVersion: string; seconds: number; signal: AbortSignal },
    onEvent: (event: WatchEvent) => void,
  ): Promise<void>;
  /** As `list`, with the resource version to watch from. */
  listFrom(kind: KubeKind): Promise<{ items: KubeObject[]; resourceVersion: string }>;
  close(): void;
  /** What the cluster serves: true for a kind that exists (`snapshot.storage.k8s.io/v1`, `VolumeSnapshot`). */
  serves(apiVersion: string, kind: string): Promise<boolean>;
}
