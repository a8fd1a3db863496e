import { setTimeout as delay } from 'node:timers/promises';

/** How long a step waits for work that usually takes milliseconds. */
export const maxStepWaitMs = 200;

/**
 * Work that can outlast a step, by key: each step waits a moment for it, and a later step that asks for the same key
 * gets the same work.
 */
export function makeBackgroundWork() {
  const running = new Map<string, Promise<unknown>>();
  return {
    /** The result if the work finishes soon, else null. A failure is thrown once, and the next call starts again. */
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
