/**
 * Tells a person's input in an editor from an editor that is merely attached, by the sizes and times of what crosses the
 * forwarded ports of one client. Contents are never looked at.
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
 * What an editor sends by itself is about the same in each minute. What answers an event from the workspace (a file changed, a build
 * printed) follows it closely; input does not wait for anything, except during fast typing, which is recognized by its amount. File
 * changes arrive on one connection and cause messages on another, so all connections of a client are judged together.
 */
export interface InputClassifier {
  /** Something went from the client to the workspace. */
  upstream(bytes: number): void;
  /** Something went to the client. */
  downstream(): void;
}

/**
 * A new client loads its windows, and a returning one restores them: what it sends meanwhile is no input. code-server takes 20 s
 * on a busy machine.
 */
const settleMs = 30_000;
/** Longer than a client takes to answer over the slowest usual line, shorter than most pauses between two keys. */
const answerMs = 300;
/** If the client may have been answering for more than this share of a minute, its own bytes cannot be told from answers. */
const maxBlindShare = 0.5;
const bucketMs = 10_000;
const bucketsPerMinute = 6;
const maxBlindMs = maxBlindShare * bucketsPerMinute * bucketMs;
/** Minutes by which the usual traffic is known. Longer than a person types without a minute's pause. */
const maxMinutes = 30;
/** The quietest minutes, of this share, count as idle even if the person was busy in all others. */
const idleShare = 0.1;
/** Input makes a minute this much larger than an idle one. Idle minutes differ by 1.4 times. */
const own = { factor: 1.5, bytes: 100 };
/** A line typed to a command without a terminal is short. */
const minCommandBytes = 1;
const all = { factor: 5, bytes: 1000 };
/**
 * More than any editor sends by itself, for a person who types from the first minute on without a pause. Only in a minute in which
 * it is not known what was an answer: a program that polls at regular intervals may send as much.
 */
const typingBytes = 16 * 1024;

interface Traffic {
  all: number;
  /** Of these, what was sent without waiting for anything. */
  own: number;
  /** How long the client may have been answering. */
  blindMs: number;
}
const nothing = (): Traffic => ({ all: 0, own: 0, blindMs: 0 });

export function makeInputClassifier(options: {
  onInput: () => void;
  /** It is the stdin of a command. */
  isCommand?: boolean;
  now?: () => number;
}): InputClassifier {
  const { onInput, isCommand = false, now = () => performance.now() } = options;
  const settledAt = now() + settleMs;
  /** Of the last minute, newest last. */
  const buckets = [nothing()];
  let bucketAt = settledAt;
  let bucketCount = 0;
  /** Of past minutes, oldest first. */
  const minutes: Traffic[] = [];
  /** What is usual; null until a minute has passed. */
  let usual: { all: number; own: number } | null = null;
  let downstreamAt = Number.NEGATIVE_INFINITY;

  const sum = (key: keyof Traffic) => buckets.reduce((total, bucket) => total + bucket[key], 0);

  function endMinute() {
    minutes.push({ all: sum('all'), own: sum('own'), blindMs: sum('blindMs') });
    if (minutes.length > maxMinutes) minutes.shift();
    const active = minutes.filter((minute) => minute.all > 0);
    usual =
      active.length < minutes.length / 2
        ? // Silent but for now and then, so without heartbeats. A laptop that slept for longer has to be learned again.
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
