export interface Pool {
  /** Resolves when the work has begun. Rejects with the first failure, after all that runs has ended. */
  start(work: () => Promise<void>): Promise<void>;
  /** Resolves when all work has ended; rejects with the first failure. */
  idle(): Promise<void>;
}

/**
 * Runs a few at a time, and nothing new after a failure. Not p-limit, whose queue has no bound: a walk through a million
 * files must wait for the copies.
 */
export function makePool(maxConcurrent: number): Pool {
  const running = new Set<Promise<void>>();
  let freed: PromiseWithResolvers<void> | undefined;
  let failure: { error: unknown } | null = null;
  async function idle(): Promise<void> {
    await Promise.all(running);
    if (failure) throw failure.error;
  }
  return {
    async start(work) {
      while (running.size >= maxConcurrent) {
        freed ??= Promise.withResolvers();
        await freed.promise;
      }
      if (failure) return idle();
      const one = work()
        .catch((error) => {
          failure ??= { error };
        })
        .finally(() => {
          running.delete(one);
          freed?.resolve();
          freed = undefined;
        });
      running.add(one);
    },
    idle,
  };
}
