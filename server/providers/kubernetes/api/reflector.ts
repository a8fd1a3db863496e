import { type KubeClient, KubeError, type KubeKind } from './client.ts';
import type { KubeOf } from './models.ts';

/** We end a watch after this long (up to half as much again), so that none lives forever. */
const watchSeconds = 300;
/**
 * The API server sends a bookmark about every minute. A watch that is silent for longer is considered dead even if
 * its connection looks alive: a proxy or NAT in between has dropped it.
 */
const silentMs = 90_000;
const firstBackoffMs = 500;
const maxBackoffMs = 30_000;

export interface ReflectorEvents<Kind extends string = string> {
  /** All objects: after the first list, and after each later one. */
  onList(objects: KubeOf<Kind>[]): void;
  onObject(type: 'ADDED' | 'MODIFIED' | 'DELETED', object: KubeOf<Kind>): void;
  /** The last call failed, or the first one since a failure succeeded (null). */
  onState(error: KubeError | null): void;
}

export interface Reflector {
  /** Lists again at once. */
  relist(): void;
  stop(): void;
}

/**
 * Follows one kind of one cluster, like client-go's Reflector: lists, then watches from there, until stopped. A
 * broken watch resumes at the last resource version; only a 410 (version too old) lists again. Retries back off with
 * jitter, so that many replicas do not return at the same moment.
 */
export function startReflector<Kind extends string>(
  client: Pick<KubeClient, 'listFrom' | 'watch'>,
  kind: KubeKind<Kind>,
  events: ReflectorEvents<Kind>,
  options: { silentMs?: number; random?: () => number } = {},
): Reflector {
  const random = options.random ?? Math.random;
  const silenceTimeoutMs = options.silentMs ?? silentMs;
  let stopped = false;
  let version: string | null = null;
  let backoffMs = firstBackoffMs;
  let current: AbortController | null = null;
  let wake: (() => void) | null = null;

  const sleep = (ms: number) =>
    new Promise<void>((resolve) => {
      const timer = setTimeout(done, ms);
      timer.unref();
      function done() {
        clearTimeout(timer);
        wake = null;
        resolve();
      }
      wake = done;
    });

  async function listAndWatch(): Promise<void> {
    if (version === null) {
      const listed = await client.listFrom(kind);
      if (stopped) return;
      version = listed.resourceVersion;
      events.onList(listed.items);
      events.onState(null);
      backoffMs = firstBackoffMs;
    }
    const control = new AbortController();
    current = control;
    let lastEventAt = Date.now();
    let timedOut = false;
    const watchdog = setInterval(
      () => {
        if (Date.now() - lastEventAt < silenceTimeoutMs) return;
        timedOut = true;
        control.abort();
      },
      Math.min(5_000, silenceTimeoutMs / 4),
    );
    watchdog.unref();
    try {
      await client.watch(
        kind,
        {
          resourceVersion: version,
          seconds: Math.round(watchSeconds * (1 + random() / 2)),
          signal: control.signal,
        },
        ({ type, object }) => {
          if (stopped || current !== control) return;
          lastEventAt = Date.now();
          version = object.metadata.resourceVersion ?? version;
          if (backoffMs !== firstBackoffMs) events.onState(null);
          backoffMs = firstBackoffMs;
          if (type !== 'BOOKMARK') events.onObject(type, object);
        },
      );
    } catch (error) {
      if (timedOut)
        throw new KubeError(`The watch of ${kind.kind} was silent for ${silenceTimeoutMs / 1000} s.`, {
          unreachable: true,
        });
      throw error;
    } finally {
      clearInterval(watchdog);
      if (current === control) current = null;
    }
  }

  async function run(): Promise<void> {
    while (!stopped) {
      try {
        await listAndWatch();
        continue;
      } catch (error) {
        if (stopped) return;
        const failure =
          error instanceof KubeError
            ? error
            : new KubeError(String(error), { unreachable: true, cause: error });
        if (failure.status === 410) version = null;
        // Connections break during a watch all the time; only a failure that persists is reported.
        else if (backoffMs > firstBackoffMs || version === null) events.onState(failure);
      }
      await sleep(backoffMs * (0.5 + random()));
      backoffMs = Math.min(backoffMs * 2, maxBackoffMs);
    }
  }
  void run();

  return {
    relist() {
      version = null;
      backoffMs = firstBackoffMs;
      current?.abort();
      wake?.();
    },
    stop() {
      stopped = true;
      current?.abort();
      wake?.();
    },
  };
}
