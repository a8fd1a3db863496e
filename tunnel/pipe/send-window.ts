/**
 * Limits a pipe's unacknowledged bytes on its path. Sending more than the path can carry does not deliver sooner: the
 * excess sits in the buffers of kernels, satellites and routers, and the next keystroke waits behind it. So the limit
 * is 1.5 times the bandwidth-delay product, measured from acknowledgements as in "BBR: Congestion-Based Congestion
 * Control" (ACM Queue, 2016). TCP or SCTP underneath still handles losses.
 *
 * It has no streams and no timers; pipe.ts reports what it sent and what was acknowledged, both as positions.
 */
export interface SendWindow {
  /** Maximum unacknowledged bytes. */
  readonly limit: number;
  /** Current unacknowledged bytes. */
  readonly bytes: number;
  /** A frame that ends at this position was sent. */
  sent(end: number): void;
  /** More data was ready, but the limit or the path's backpressure stopped it. */
  limited(): void;
  /** The other end has received everything below the position. */
  acknowledged(position: number): void;
  /** The pipe moved to another path: everything above the position is sent again, and measurements start over. */
  restart(position: number): void;
}

/** Two full frames: frames of up to 64 KiB are acknowledged as a whole. */
const minBytes = 128 * 1024;
const initialBytes = 256 * 1024;
/** Above 1, so that the limit grows by this factor per round trip while the path has capacity. */
const gain = 1.5;
/** Acknowledgements are delayed by up to 5 ms (pipe.ts) and by a busy CPU; a smaller value starves short paths. */
const minRttMs = 30;
/** Window of the maximum filter: longer than any usable round trip, short enough to follow a moving train. */
const rateWindowMs = 2_000;
/** The gain itself builds a queue, so drain it this often to measure the round trip without one. */
const probeEveryMs = 10_000;

interface Sample {
  end: number;
  at: number;
  /** Both as of when the frame was sent. */
  delivered: number;
  deliveredAt: number;
}

export function makeSendWindow(options: { now: () => number; maxBytes: number }): SendWindow {
  const { now, maxBytes } = options;
  let samples: Sample[] = [];
  let oldest = 0;
  let reached = 0;
  let delivered = 0;
  let deliveredAt = now();
  /** When sending was last limited. */
  let limitedAt = Number.NEGATIVE_INFINITY;
  /** Descending; the first is the maximum within the window. */
  let rates: { at: number; rate: number }[] = [];
  let rttMs = Number.POSITIVE_INFINITY;
  let rttAt = now();
  /** Set while draining to measure the round trip: when that began. */
  let probing: number | undefined;
  let limit = initialBytes;

  const restart = (position: number): void => {
    samples = [];
    oldest = 0;
    reached = position;
    delivered = position;
    deliveredAt = now();
    rates = [];
    rttMs = Number.POSITIVE_INFINITY;
    rttAt = now();
    probing = undefined;
    limit = initialBytes;
  };

  function take(sample: Sample, at: number): void {
    const rtt = at - sample.at;
    const probed = probing !== undefined && sample.at >= probing;
    if (rtt <= rttMs || probed) {
      rttMs = rtt;
      rttAt = at;
      probing = undefined;
    }
    // A rate limited by the application says nothing about the path.
    const full = limitedAt >= sample.deliveredAt;
    const rate = (delivered - sample.delivered) / Math.max(at - sample.deliveredAt, 1);
    if (full || rate > (rates[0]?.rate ?? 0)) {
      rates = rates.filter((each) => each.rate > rate && at - each.at <= rateWindowMs);
      rates.push({ at, rate });
    }
    const best = rates[0]?.rate ?? 0;
    const onPath = best * Math.max(rttMs, minRttMs);
    if (full && at - rttAt > probeEveryMs) probing ??= at;
    const wanted = probing === undefined ? gain * onPath + minBytes / 2 : onPath / 2;
    if (full || wanted > limit) limit = Math.min(maxBytes, Math.max(minBytes, wanted));
  }

  return {
    get limit() {
      return limit;
    },
    get bytes() {
      return reached - delivered;
    },
    sent(end) {
      const at = now();
      // Idle time does not count toward the rate.
      if (reached === delivered) deliveredAt = at;
      samples.push({ end, at, delivered, deliveredAt });
      reached = Math.max(reached, end);
    },
    limited() {
      limitedAt = now();
    },
    acknowledged(position) {
      if (position <= delivered) return;
      const at = now();
      let sample: Sample | undefined;
      while (oldest < samples.length && samples[oldest]!.end <= position) sample = samples[oldest++];
      if (oldest >= 64 || oldest === samples.length) {
        samples = samples.slice(oldest);
        oldest = 0;
      }
      delivered = position;
      deliveredAt = at;
      if (sample) take(sample, at);
    },
    restart,
  };
}
