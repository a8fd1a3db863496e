/**
 * How much a pipe may have under way on its path. More than the path can carry does not arrive sooner: it lies in
 * the buffers of kernels, satellites and routers, and whatever is sent next, a key's echo beside a download, waits
 * behind it. So the limit follows the path: half as much again as fits on it (rate times round trip), measured by what the other
 * end acknowledges, after "BBR: Congestion-Based Congestion Control" (ACM Queue, 2016). Below, TCP or SCTP
 * goes on to care for losses.
 *
 * It knows no stream and no timer: pipe.ts tells what it sends and what was acknowledged, both as positions.
 */
export interface SendWindow {
  /** How many bytes may be under way. */
  readonly limit: number;
  /** How many are. */
  readonly bytes: number;
  /** A frame that ends at this position was put on the path. */
  sent(end: number): void;
  /** There is more to send, but for the limit, or for the path itself. */
  limited(): void;
  /** The other end has everything below the position. */
  acknowledged(position: number): void;
  /** Another path: all above the position is sent again, and nothing is known. */
  restart(position: number): void;
}

/** Frames have up to 64 KiB, and are acknowledged together. */
const minBytes = 128 * 1024;
const initialBytes = 256 * 1024;
/** Beyond the path's own content, half as much again: so that it grows by that each round trip while the path takes it. */
const gain = 1.5;
/** Acknowledgements wait for each other up to 5 ms (pipe.ts), and for a CPU that others use: less would leave a short path empty. */
const minRttMs = 30;
/** The best rate of this time counts: longer than a round trip of any use, short enough to follow a train. */
const rateWindowMs = 2_000;
/** By the limit itself some of what is under way queues, so now and then it is let run empty, to see the path alone. */
const probeEveryMs = 10_000;

interface Sample {
  end: number;
  at: number;
  /** As they were when it was sent. */
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
  /** When there was last more to send than could be. */
  let limitedAt = Number.NEGATIVE_INFINITY;
  /** Falling rates, each with the time when it was measured: the first is the best of the window. */
  let rates: { at: number; rate: number }[] = [];
  let rttMs = Number.POSITIVE_INFINITY;
  let rttAt = now();
  /** While the path is let run empty: since when. */
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
    // Less than the path carries says nothing of it.
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
      // After a rest the time without anything under way is no part of a rate.
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
