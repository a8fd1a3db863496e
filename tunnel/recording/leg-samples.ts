import type { LegSample } from '@cde/api/diagnosis.ts';

/** Collects the round trips of one leg. */
export interface LegSamples {
  add(ms: number): void;
  /** Counts a probe that has no answer yet. */
  unanswered(): void;
  /** What was collected since the last call; null if there was no answer. */
  take(): LegSample | null;
}

export function makeLegSamples(): LegSamples {
  let all: number[] = [];
  let unanswered = 0;
  return {
    add: (ms) => void all.push(ms),
    unanswered: () => void unanswered++,
    take() {
      const sorted = all.sort((one, other) => one - other);
      // The rank is rounded down: of ten round trips the latest is only the maximum.
      const at = (share: number) => Math.round(sorted[Math.floor((sorted.length - 1) * share)]! * 100) / 100;
      const sample =
        sorted.length === 0
          ? null
          : { p50: at(0.5), p95: at(0.95), max: at(1), count: sorted.length, unanswered };
      all = [];
      unanswered = 0;
      return sample;
    },
  };
}
