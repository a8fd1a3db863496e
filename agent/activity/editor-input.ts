/**
 * Distinguishes a person's input in an editor from an editor that is merely attached, by the sizes and times of the messages on
 * one client's forwarded ports. It never looks at contents.
 *
 * Measured with code-server 4.139 (the protocol of VS Code Remote), all connections of one window together. "Own" bytes are those
 * of upstream messages without a downstream message in the 300 ms before:
 *
 *                               upstream bytes   own bytes per minute
 *   idle (timers of 5 s)                 2,200                550–800
 *   watched files change                 5,000                    520
 *   one key every 6 s                    9,500                  2,000
 *   typing                              28,000                  1,500
 *
 * An editor by itself sends about the same amount each minute. Its answers to events in the workspace (a file changed, a build
 * printed) follow them closely. Input follows nothing, except during fast typing, which is recognized by its amount. File changes
 * arrive on one connection and cause messages on another, so all connections of a client are judged together.
 */
export interface InputClassifier {
  /** The client has sent something to the workspace. */
  upstream(bytes: number): void;
  /** The client has received something. */
  downstream(): void;
}

/** While a client loads or restores its windows, what it sends is not input. code-server takes 20 s on a busy machine. */
const settleMs = 30_000;
/** Longer than a client takes to answer over the slowest usual line, shorter than most pauses between two keys. */
const answerMs = 300;
/** If the client may have been answering for more than this share of a minute, its own bytes cannot be told from answers. */
const maxBlindShare = 0.5;
const bucketMs = 10_000;
const bucketsPerMinute = 6;
const maxBlindMs = maxBlindShare * bucketsPerMinute * bucketMs;
/** How many past minutes define the usual traffic. Longer than a person types without a minute's pause. */
const maxMinutes = 30;
/** The quietest minutes, of this share, count as idle even if the person was busy in all others. */
const idleShare = 0.1;
/** A minute with input is larger than an idle one by at least this. Idle minutes differ by up to 1.4 times. */
const own = { factor: 1.5, bytes: 100 };
/** A line typed to a command without a terminal is short. */
const minCommandBytes = 1;
const all = { factor: 5, bytes: 1000 };
/**
 * For a person who types from the first minute on without a pause: more than any editor sends by itself. Counts only in a minute in
 * which input cannot be told from answers, because a program that polls may send as much.
 */
const typingBytes = 16 * 1024;

interface Traffic {
  all: number;
  /** The part of it that answered nothing. */
  own: number;
  /** How long the client may have been answering. */
  blindMs: number;
}
const nothing = (): Traffic => ({ all: 0, own: 0, blindMs: 0 });

export function makeInputClassifier(options: {
  onInput: () => void;
  /** The input is the stdin of a command. */
  isCommand?: boolean;
  now?: () => number;
}): InputClassifier {
  const { onInput, isCommand = false, now = () => performance.now() } = options;
  const settledAt = now() + settleMs;
  /** The last minute, oldest first. */
  const buckets = [nothing()];
  let bucketAt = settledAt;
  let bucketCount = 0;
  /** Past minutes, oldest first. */
  const minutes: Traffic[] = [];
  /** The usual traffic; null until a minute has passed. */
  let usual: { all: number; own: number } | null = null;
  let downstreamAt = Number.NEGATIVE_INFINITY;

  const sum = (key: keyof Traffic) => buckets.reduce((total, bucket) => total + bucket[key], 0);

  function endMinute() {
    minutes.push({ all: sum('all'), own: sum('own'), blindMs: sum('blindMs') });
    if (minutes.length > maxMinutes) minutes.shift();
    const active = minutes.filter((minute) => minute.all > 0);
    usual =
      active.length < minutes.length / 2
        ? // Mostly silent, so it has no heartbeats. After a long sleep of the laptop the usual traffic has to be learned again.
          { all: 0, own: 0 }
        : {
            all: lowest(active.map((minute) => minute.all)),
            own: lowest(active.filter(({ blindMs }) => blindMs < maxBlindMs).map((minute) => minute.own)),
          };
  }

  /** Moves on to the bucket of this moment. */
  function advance(at: number) {
    const passed = Math.floor((at - bucketAt) / bucketMs);
    if (passed <= 0) return;
    bucketAt += passed * bucketMs;
    for (let step = 0; step < Math.min(passed, maxMinutes * bucketsPerMinute); step += 1) {
      bucketCount += 1;
      if (bucketCount % bucketsPerMinute === 0) endMinute();
      buckets.push(nothing());
      if (buckets.length > bucketsPerMinute) buckets.shift();
    }
  }

  function isInput(): boolean {
    if (sum('all') >= typingBytes && sum('blindMs') >= maxBlindMs) return true;
    if (!usual) return false;
    return (
      sum('own') >= usual.own * own.factor + (isCommand ? minCommandBytes : own.bytes) ||
      sum('all') >= usual.all * all.factor + all.bytes
    );
  }

  return {
    upstream(bytes) {
      const at = now();
      if (at < settledAt) return;
      advance(at);
      const bucket = buckets.at(-1)!;
      bucket.all += bytes;
      if (at - downstreamAt > answerMs) bucket.own += bytes;
      if (isInput()) onInput();
    },
    downstream() {
      const at = now();
      if (at >= settledAt) {
        advance(at);
        buckets.at(-1)!.blindMs += Math.min(answerMs, at - downstreamAt);
      }
      downstreamAt = at;
    },
  };
}

/** The highest of the lowest tenth; infinite if there are no values, so that nothing is above it. */
function lowest(values: number[]): number {
  const sorted = values.sort((one, other) => one - other);
  return sorted[Math.floor((sorted.length - 1) * idleShare)] ?? Number.POSITIVE_INFINITY;
}
