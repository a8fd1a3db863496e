import type { KubeObject, KubeOf } from './models.ts';

export type { KubeObject };

/** A kind, and which of its objects. Without `namespace`: those of all namespaces, or of the cluster itself. */
export interface KubeKind<Kind extends string = string> {
  apiVersion: string;
  kind: Kind;
  namespace?: string;
  /** A label selector: `cde.dev/managed=true`. */
  labels?: string;
  /** A field selector: `type=Warning`. */
  fields?: string;
}

export interface KubeRef<Kind extends string = string> {
  apiVersion: string;
  kind: Kind;
  namespace?: string;
  name: string;
}

/**
 * Why a call failed. `unreachable`: no reply that says anything about the objects (network, timeout, 5xx, 429), so
 * nothing is concluded from it and the call is retried later. Otherwise `status` and Kubernetes' own `reason`
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
      unreachable?: boolean;
      causes?: { field?: string; message: string; reason?: string }[];
      cause?: unknown;
    } = {},
  ) {
    super(message, { cause: more.cause });
    this.name = 'KubeError';
    this.status = more.status ?? 0;
    this.reason = more.reason ?? '';
    this.unreachable = more.unreachable ?? false;
    this.causes = more.causes ?? [];
  }
}

export interface WatchEvent<Kind extends string = string> {
  type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK';
  object: KubeOf<Kind>;
}

/** The field manager of everything that we apply. */
export const fieldManager = 'cde';

/**
 * The calls that the provider makes to one cluster. All reject with KubeError; none retries. The literal kind of a
 * call is the type of its reply: `get({ apiVersion: 'v1', kind: 'Pod', … })` returns a `Kube<'Pod'>`.
 */
export interface KubeClient {
  /** The API server's URL. */
  readonly server: string;
  /** PEM of the authority that signed its certificate; null: a public one. */
  readonly certificateAuthority: string | null;
  /** Requests made so far, watches included (for bench/). */
  calls(): number;
  /** Server-side apply with our field manager. Without `force`, a field that another manager owns is a Conflict. */
  apply<Kind extends string>(
    object: { kind: Kind } & KubeOf<Kind>,
    options?: { dryRun?: boolean; force?: boolean },
  ): Promise<KubeOf<Kind>>;
  /** Null when it does not exist. */
  get<Kind extends string>(ref: KubeRef<Kind>): Promise<KubeOf<Kind> | null>;
  /** All pages. */
  list<Kind extends string>(kind: KubeKind<Kind>): Promise<KubeOf<Kind>[]>;
  create<Kind extends string>(object: { kind: Kind } & KubeOf<Kind>): Promise<KubeOf<Kind>>;
  /** A JSON merge patch. */
  patch<Kind extends string>(
    ref: KubeRef<Kind>,
    patch: object,
    subresource?: 'scale' | 'status',
  ): Promise<KubeOf<Kind>>;
  /** False when it did not exist. With `uid` or `resourceVersion`, a Conflict if the object has another one. */
  remove(
    ref: KubeRef,
    options?: {
      graceSeconds?: number;
      propagation?: 'Background' | 'Foreground' | 'Orphan';
      uid?: string;
      resourceVersion?: string;
    },
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
   * One watch of a kind, starting at a resource version. Resolves when the server ends it (after `seconds`) or
   * `signal` aborts it; rejects with KubeError when it breaks, with status 410 when the resource version is too old.
   */
  watch<Kind extends string>(
    kind: KubeKind<Kind>,
    options: { resourceVersion: string; seconds: number; signal: AbortSignal },
    onEvent: (event: WatchEvent<Kind>) => void,
  ): Promise<void>;
  /** As `list`, with the resource version to watch from. */
  listFrom<Kind extends string>(
    kind: KubeKind<Kind>,
  ): Promise<{ items: KubeOf<Kind>[]; resourceVersion: string }>;
  close(): void;
  /** Whether the cluster serves this kind, such as `snapshot.storage.k8s.io/v1` `VolumeSnapshot`. */
  serves(apiVersion: string, kind: string): Promise<boolean>;
}
