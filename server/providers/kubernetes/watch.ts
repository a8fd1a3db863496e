import { type KubeClient, KubeError, type KubeKind, type KubeObject } from './client.ts';

/** A watch is ended by us after this long (seconds, and up to half as much again), so that none lives for ever. */
const watchSeconds = 300;
/**
 * The API server sends a bookmark about each minute. A watch that has said nothing for this long is taken for
 * dead, though its connection may look alive: a proxy or a NAT in between forgot it.
 */
const silentMs = 90_000;
const firstBackoffMs = 500;
const mostBackoffMs = 30_000;

export interface WatchEvents {
  /** Everything there is: after the first list, and after each later one. */
  onList(objects: KubeObject[]): void;
  onObject(type: 'ADDED' | 'MODIFIED' | 'DELETED', object: KubeObject): void;
  /** The last call failed, or the first since a failure went well (null). */
  onState(error: KubeError | null): void;
}

export interface Watch {
  /** Lists anew at once. */
  poke(): void;
  stop(): void;
}

/**
 * Keeps one kind of one cluster in sight: lists, then watches from there, for ever. A break resumes from the
 * last resource version; only a 410 (too old) lists again. Waits between attempts grow and are jittered, so that
 * a thousand replicas do not return at once.
 */
export function keepWatching(
  client: Pick<KubeClient, 'listFrom' | 'watch'>,
  kind: KubeKind,
  events: WatchEvents,
  options: { silentMs?: number; random?: () => number } = {},
): Watch {
  const random = options.random ?? Math.random;
  const patienceMs = options.silentMs ?? silentMs;
  let stopped = false;
  let version: string | null = null;
  let backoffMs = firstBackoffMs;
  let current: AbortController | null = null;
  let wake: (() => void) | null = null;

  const asleep = (ms: number) =>
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

  async function once(): Promise<void> {
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
    let heard = Date.now();
    let silent = false;
    const watchdog = setInterval(
      () => {
        if (Date.now() - heard < patienceMs) return;
        silent = true;
        control.abort();
      },
      Math.min(5_000, patienceMs / 4),
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
          heard = Date.now();
          version = object.metadata.resourceVersion ?? version;
          if (backoffMs !== firstBackoffMs) events.onState(null);
          backoffMs = firstBackoffMs;
          if (type !== 'BOOKMARK') events.onObject(type, object);
        },
      );
    } catch (error) {
      if (silent)
        throw new KubeError(`The watch of ${kind.kind} said nothing for ${patienceMs / 1000} s.`, {
          away: true,
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
        await once();
        continue;
      } catch (error) {
        if (stopped) return;
        const failure =
          error instanceof KubeError ? error : new KubeError(String(error), { away: true, cause: error });
        if (failure.status === 410) version = null;
        // A connection cut in the middle of a watch is everyday; only what lasts is worth a word.
        else if (backoffMs > firstBackoffMs || version === null) events.onState(failure);
      }
      await asleep(backoffMs * (0.5 + random()));
      backoffMs = Math.min(backoffMs * 2, mostBackoffMs);
    }
  }
  void run();

  return {
    poke() {
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
