/** Numbers that depend only on a seed (mulberry32). */
export interface Chance {
  /** From 0 to 1. */
  next(): number;
  between(min: number, max: number): number;
  whole(min: number, max: number): number;
  pick<T>(from: readonly T[]): T;
  shuffle<T>(all: readonly T[]): T[];
}

export function makeChance(seed: number): Chance {
  let state = Math.imul(seed ^ 0x9e3779b9, 0x85ebca6b) >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const between = (min: number, max: number) => min + next() * (max - min);
  const whole = (min: number, max: number) => Math.floor(between(min, max + 1));
  return {
    next,
    between,
    whole,
    pick: (from) => from[whole(0, from.length - 1)]!,
    shuffle(all) {
      const left = [...all];
      for (let at = left.length - 1; at > 0; at--) {
        const other = whole(0, at);
        [left[at], left[other]] = [left[other]!, left[at]!];
      }
      return left;
    },
  };
}
