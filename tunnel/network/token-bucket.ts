/** A token bucket: bursts of up to `burst`, `perSecond` on average. */
export interface Bucket {
  /** Takes tokens, going into debt if there are too few. Returns false when in debt. */
  take(amount: number): boolean;
  /** Milliseconds until the debt is repaid; 0 when there is none. */
  waitMs(): number;
}

export interface Rate {
  perSecond: number;
  burst: number;
}

export function makeBucket(rate: Rate, now: () => number = () => performance.now()): Bucket {
  let tokens = rate.burst;
  let filledAt = now();
  const fill = () => {
    const at = now();
    tokens = Math.min(rate.burst, tokens + ((at - filledAt) / 1000) * rate.perSecond);
    filledAt = at;
  };
  return {
    take(amount) {
      // Reading the clock costs more than the rest, so do it only when tokens run out.
      if (tokens < amount) fill();
      tokens -= amount;
      return tokens >= 0;
    },
    waitMs() {
      fill();
      return tokens >= 0 ? 0 : (-tokens / rate.perSecond) * 1000;
    },
  };
}
