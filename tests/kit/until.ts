/**
 * How long tests wait for a condition: much longer than it takes, because the machine may be busy with other tests. Suites whose
 * conditions take longer set CDE_TEST_PATIENCE_MS.
 */
export const patienceMs = Number(process.env.CDE_TEST_PATIENCE_MS ?? 90_000);

/** A condition that takes long is read less often: a tenth of the time waited so far, within these. */
const pauseMs = { min: 10, max: 100 };

type Truthy<T> = Exclude<T, false | null | undefined | 0 | ''>;

/**
 * Waits for a condition, never for a time. `check` is either a predicate on what `read` returns, or the name of what is
 * waited for: then the first truthy value ends the wait. Resolves with that value; throws with the last one after `forMs`.
 */
export function until<T>(
  read: () => T | Promise<T>,
  check: (value: T) => boolean,
  forMs?: number,
): Promise<T>;
export function until<T>(read: () => T | Promise<T>, what: string, forMs?: number): Promise<Truthy<T>>;
export async function until<T>(
  read: () => T | Promise<T>,
  check: string | ((value: T) => boolean),
  forMs = patienceMs,
): Promise<T> {
  const isMet = typeof check === 'string' ? Boolean : check;
  const began = performance.now();
  for (;;) {
    const value = await read();
    if (isMet(value)) return value;
    const waitedMs = performance.now() - began;
    if (waitedMs > forMs) {
      const what = typeof check === 'string' ? check : 'a condition';
      throw new Error(`Waited ${forMs} ms for ${what}; the last value was ${JSON.stringify(value)}`);
    }
    const pause = Math.min(Math.max(waitedMs / 10, pauseMs.min), pauseMs.max);
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}
