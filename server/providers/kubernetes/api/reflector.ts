import { type KubeClient, KubeError, type KubeKind, type KubeObject } from './client.ts';

/** A watch is ended by us after this long (seconds, and up to half as much again), so that none lives for ever. */
const watchSeconds = 300;
/**
 * The API server sends a bookmark about each minute. A watch that has said nothing for this long is taken for
 * dead, though its connection may look alive: a proxy or a NAT in between forgot it.
 */
const silentMs = 90_000;
const firstBackoffMs = 500;
const maxBackoffMs = 30_000;

export interface ReflectorEvents {
  /** Everything there is: after the first list, and after each later one. */
  onList(objects: KubeObject[]): void;
  onObject(type: 'ADDED' | 'MODIFIED' | 'DELETED', object: KubeObject): void;
  /** The last call failed, or the first since a failure went well (null). */
  onState(error: KubeError | null): void;
}

export interface Reflector {
  /** Lists anew at once. */
  relist(): void;
  stop(): void;
}

/**
 * Keeps one kind of one cluster in sight: lists, then watches from there, for ever. A break resumes from the
 * last resource version; only a 410 (too old) lists again. Waits between attempts grow and are jittered, so that
 * a thousand replicas do not return at once.
 */
export function startReflector(
  client: Pick<KubeClient, 'listFrom' | 'watch'>,
  kind: KubeKind,
  events: ReflectorEvents,
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
        throw new KubeError(`The watch of ${kind.kind} said nothing for ${silenceTimeoutMs / 1000} s.`, {
          unreachableError: true,
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
            : new KubeError(String(error), { unreachableError: true, cause: error });
        if (failure.status === 410) version = null;
        // A connection cut in the middle of a watch is everyday; only what lasts is worth a word.
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
