import { setTimeout as delay } from 'node:timers/promises';

/** Time and chance, so that tests own both. */
export interface Clock {
  /** Milliseconds that only go forward. */
  now(): number;
  /** From 0 up to, not including, 1. */
  random(): number;
  /** Resolves after `ms`, or at once when the signal is aborted. */
  sleep(ms: number, signal: AbortSignal): Promise<void>;
}

export const systemClock: Clock = {
  now: () => performance.now(),
  random: Math.random,
  sleep: (ms, signal) => delay(ms, undefined, { signal, ref: false }).catch(() => {}),
};

/**
 * How long to wait before attempt `failures + 1`: anywhere from nothing to 0.5 s doubled each time, at most
 * `longestMs` (15 s). Drawn from the whole range ("full jitter"), so that all agents of a satellite that restarted do not
 * come back at the same moment.
 */
export function backoff(failures: number, random: () => number, maxMs = 15_000): number {
  return random() * Math.min(maxMs, 500 * 2 ** Math.min(failures - 1, 10));
}
