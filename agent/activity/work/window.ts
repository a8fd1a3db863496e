/**
 * How long usage is averaged. Shorter windows see the start of a language server or a garbage collection; longer ones would
 * delay the stop of every workspace by as much.
 */
const windowMs = 60_000;

export interface Window {
  /** Whether the counter has grown faster than the limit, on average over the last minute. */
  isBusy(total: number, at: number): boolean;
  /** Forgets how the counter has grown so far. */
  rebase(total: number, at: number): void;
}

/** Judges a counter that only grows. */
export function makeWindow(perSecond: number): Window {
  /** Oldest first; the first is the newest that is at least a window old, if there is one. */
  let samples: { total: number; at: number }[] = [];
  return {
    isBusy(total, at) {
      samples.push({ total, at });
      while (samples.length > 2 && at - samples[1]!.at >= windowMs) samples.shift();
      const first = samples[0]!;
      // Shortly after the start there is no whole window yet: what was used in it counts as if nothing more followed.
      const seconds = Math.max(at - first.at, windowMs) / 1000;
      return total - first.total >= perSecond * seconds;
    },
    rebase(total, at) {
      samples = [{ total, at }];
    },
  };
}
