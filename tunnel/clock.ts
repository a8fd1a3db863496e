import { setTimeout as delay } from 'node:timers/promises';

/** Time and randomness, injectable so that tests control both. */
export interface Clock {
  /** Monotonic milliseconds. */
  now(): number;
  /** In [0, 1). */
  random(): number;
  /** Resolves after `ms`, or immediately when the signal is aborted. */
  sleep(ms: number, signal: AbortSignal): Promise<void>;
}

export const systemClock: Clock = {
  now: () => performance.now(),
  random: Math.random,
  sleep: (ms, signal) => delay(ms, undefined, { signal, ref: false }).catch(() => {}),
};

/**
 * Exponential backoff with full jitter: a random delay between 0 and 0.5 s × 2^(failures - 1), capped at `maxMs`.
 * Full jitter keeps the agents of a restarted satellite from reconnecting at the same moment.
 */
export function backoff(failures: number, random: () => number, maxMs = 15_000): number {
  return random() * Math.min(maxMs, 500 * 2 ** Math.min(failures - 1, 10));
}
