import { setTimeout as delay } from 'node:timers/promises';

/** How long a step waits for work that usually takes a few milliseconds. */
export const maxStepWaitMs = 200;

/**
 * Work that can outlast a step, by key. Each step waits for it briefly, and a later step with the same key joins the
 * same work.
 */
export function makeBackgroundWork() {
  const running = new Map<string, Promise<unknown>>();
  return {
    /** The result if the work finishes soon, else null. A failure is thrown once; the next call starts over. */
    async result<T>(key: string, work: () => Promise<T>): Promise<{ value: T } | null> {
      let job = running.get(key) as Promise<T> | undefined;
      if (!job) {
        job = work();
        job.catch(() => {});
        running.set(key, job);
      }
      const timeout = new AbortController();
      try {
        const first = await Promise.race([
          job.then((value) => ({ value })),
          delay(maxStepWaitMs, null, { signal: timeout.signal, ref: false }).catch(() => null),
        ]);
        if (first) running.delete(key);
        return first;
      } catch (error) {
        running.delete(key);
        throw error;
      } finally {
        timeout.abort();
      }
    },
    settled: () => Promise.allSettled(running.values()),
  };
}

export type BackgroundWork = ReturnType<typeof makeBackgroundWork>;
