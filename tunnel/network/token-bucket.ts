/** A token bucket: `burst` at once, `perSecond` on average. */
export interface Bucket {
  /** Takes tokens, even if the bucket owes them afterwards. False if it does. */
  take(amount: number): boolean;
  /** How long until it owes nothing, in milliseconds; 0 if it owes nothing now. */
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
      // Reading the clock costs more than the rest: only when the tokens at hand do not suffice.
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
