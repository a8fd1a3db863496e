/**
 * How long tests wait for a condition: much longer than it takes, because the machine may be busy with other tests. Suites whose
 * conditions take longer set CDE_TEST_PATIENCE_MS.
 */
export const patienceMs = Number(process.env.CDE_TEST_PATIENCE_MS ?? 90_000);

/** A condition that takes long is read less often: a tenth of the time waited so far, within these. */
const pauseMs = { min: 10, max: 100 };
/** How long a value has to stay the same to count as settled. */
const settledAfterMs = 500;

type Truthy<T> = Exclude<T, false | null | undefined | 0 | ''>;

export interface Limits<T> {
  forMs?: number;
  /** The error's message, made of the last value. */
  why?: (value: T) => string;
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/**
 * Waits for a condition, never for a time. `check` is either a predicate on what `read` returns, or the name of what is
 * waited for: then the first truthy value ends the wait. Resolves with that value; throws with the last one after `forMs`.
 */
export function until<T>(
  read: () => T | Promise<T>,
  check: (value: T) => boolean,
  limits?: number | Limits<T>,
): Promise<T>;
export function until<T>(
  read: () => T | Promise<T>,
  what: string,
  limits?: number | Limits<T>,
): Promise<Truthy<T>>;
export async function until<T>(
  read: () => T | Promise<T>,
  check: string | ((value: T) => boolean),
  limits: number | Limits<T> = {},
): Promise<T> {
  const { forMs = patienceMs, why } = typeof limits === 'number' ? { forMs: limits } : limits;
  const isMet = typeof check === 'string' ? Boolean : check;
  const began = performance.now();
  for (;;) {
    const value = await read();
    if (isMet(value)) return value;
    const waitedMs = performance.now() - began;
    if (waitedMs > forMs) {
      if (why) throw new Error(why(value));
      const what = typeof check === 'string' ? check : 'a condition';
      throw new Error(`Waited ${forMs} ms for ${what}; the last value was ${JSON.stringify(value)}`);
    }
    await pause(Math.min(Math.max(waitedMs / 10, pauseMs.min), pauseMs.max));
  }
}

/**
 * Waits until a counter that has started no longer rises, and returns it: for upper limits only. On a busy machine it may return too early,
 * with a value that is too low.
 */
export async function settled(read: () => number): Promise<number> {
  for (let before = -1; ; ) {
    const now = read();
    if (now === before && now > 0) return now;
    before = now;
    await pause(settledAfterMs);
  }
}
