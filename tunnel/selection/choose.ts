import type { PathKind } from '../pipe/path.ts';

/**
 * Which of several paths a session should be on, as a state machine without any I/O or time of its own:
 * steer.ts measures, asks, and moves. Measurements are round trips in milliseconds, `at` is milliseconds that
 * only go forward.
 *
 * It moves when another path has been better in three rounds running, by 10 ms or 10 %; or, for direct-tcp,
 * when it is no slower than the relay, since it spares a satellite. direct-udp has to be better by more, and is left for
 * less: what it carries is no match for the kernel's TCP (bench/loss.ts, 20 ms each way: a third of it on a clean line, a
 * twentieth where one packet in a thousand is lost). Never soon after the last move, and later each time.
 */
export interface Chooser {
  /** The paths there are now. What is known of others is forgotten, but for the active one. */
  offer(candidates: readonly Candidate[]): void;
  /** A measurement; null where the path could not be had. */
  sample(id: string, rttMs: number | null, at: number): void;
  /** The session is on that path now: moved there by choice, or where it opened or went on after a loss. */
  use(id: string, at: number, by: 'choice' | 'need'): void;
  /** The path broke, or could not be moved to: it is left alone for a while, longer each time. */
  failed(id: string, at: number): void;
  /** To be asked once after each round of measurements. */
  decide(at: number): Decision;
  /** The round trip that is expected of a path; undefined while it is not known. */
  rtt(id: string): number | undefined;
  /** All paths that may be tried now, the best first, those not measured after all others. */
  ranking(at: number): string[];
  /** The network is another: what was measured counts no more. */
  forget(): void;
}

export interface Candidate {
  id: string;
  kind: PathKind;
}

export type Decision =
  /** `direct`: no slower than the relay. `tcp`: hardly slower than UDP, and carries more. */
  | { move: string; gainMs: number; why: 'faster' | 'direct' | 'tcp' }
  | { move: null; why: 'best' | 'too-soon' | 'unproven' | 'not-measured' };

/** A gain that a person at a keyboard may notice. */
export const gainMs = 10;
/** Or a tenth, where the whole is little; but less than a busy processor adds is no gain at all. */
const gainShare = 0.1;
export const noiseMs = 1;
/** A way by UDP is better by as much of what TCP takes; or by so much that everybody notices. */
const udpGainShare = 0.25;
const udpGainMs = 30;
/** So much slower may TCP be for UDP to be left. Less than gainMs: there must be no way around in a circle. */
const tcpLossMs = 5;
/** One quick sample, or two, is chance. */
export const rounds = 3;
/** The least time between two moves by choice, doubled with each within `memoryMs`. */
export const dwellMs = 30_000;
export const memoryMs = 600_000;
/** A path that failed is tried again after this, doubled each time, up to `memoryMs`. */
export const retryMs = 30_000;
/** The median of so many samples is what is expected: one that got stuck in a queue does not count. */
const maxSamples = 5;

interface Known extends Candidate {
  samples: number[];
  /** For how many rounds running it has been better than the active one. */
  wins: number;
  failures: number;
  retryAt: number;
}

/** A path and its round trip. */
export interface PathRtt {
  kind: PathKind;
  rttMs: number;
}

/** True when `other` is so much better than `current` that to move is worth it. */
export const isBetter = (current: PathRtt, other: PathRtt): boolean => reasonToMove(current, other) !== null;

function reasonToMove(current: PathRtt, other: PathRtt): 'faster' | 'direct' | 'tcp' | null {
  const gain = current.rttMs - other.rttMs;
  if (!isUdp(current) && isUdp(other))
    return gain >= gainMs && (gain >= udpGainMs || gain >= udpGainShare * current.rttMs) ? 'faster' : null;
  if (gain >= gainMs || (gain >= noiseMs && gain >= gainShare * current.rttMs)) return 'faster';
  if (isUdp(current) && !isUdp(other)) return gain > -tcpLossMs ? 'tcp' : null;
  return current.kind === 'relay' && other.kind === 'direct-tcp' && gain > -noiseMs ? 'direct' : null;
}

const isUdp = ({ kind }: { kind: PathKind }) => kind === 'direct-udp';

/** Of two that are better than the active one. */
function precedes(one: PathRtt, best: PathRtt): boolean {
  if (isUdp(one) && !isUdp(best)) return isBetter(best, one);
  if (!isUdp(one) && isUdp(best)) return !isBetter(one, best);
  return one.rttMs < best.rttMs;
}

export function makeChooser(): Chooser {
  const known = new Map<string, Known>();
  let offered = new Set<string>();
  let active: string | undefined;
  /** When it moved by choice, of late. */
  let moves: number[] = [];

  const median = ({ samples }: Known) =>
    samples.length === 0 ? undefined : [...samples].sort((one, other) => one - other)[samples.length >> 1];

  function settleUntil(): number {
    const last = moves.at(-1);
    return last === undefined ? Number.NEGATIVE_INFINITY : last + dwellMs * 2 ** (moves.length - 1);
  }

  return {
    offer(candidates) {
      offered = new Set(candidates.map(({ id }) => id));
      forgetWithdrawn();
      for (const { id, kind } of candidates)
        if (!known.has(id)) known.set(id, { id, kind, samples: [], wins: 0, failures: 0, retryAt: 0 });
    },
    sample(id, rttMs, at) {
      const one = known.get(id);
      if (!one) return;
      if (rttMs === null) {
        one.samples = [];
        one.wins = 0;
        if (id !== active) holdOff(one, at);
        return;
      }
      one.samples.push(rttMs);
      if (one.samples.length > maxSamples) one.samples.shift();
    },
    use(id, at, by) {
      active = id;
      forgetWithdrawn();
      for (const one of known.values()) one.wins = 0;
      moves = moves.filter((each) => at - each < memoryMs);
      if (by === 'choice') moves.push(at);
    },
    failed(id, at) {
      const one = known.get(id);
      if (!one) return;
      one.wins = 0;
      holdOff(one, at);
    },
    decide(at) {
      moves = moves.filter((each) => at - each < memoryMs);
      const current = active === undefined ? undefined : known.get(active);
      const now = current && median(current);
      if (!current || now === undefined) {
        for (const one of known.values()) one.wins = 0;
        return { move: null, why: 'not-measured' };
      }
      // It has served since it failed last.
      if (current.failures > 0 && at - current.retryAt > memoryMs) current.failures = 0;
      const here: PathRtt = { kind: current.kind, rttMs: now };
      let best: (PathRtt & { id: string }) | undefined;
      let unproven = false;
      for (const one of known.values()) {
        const rttMs = median(one);
        const way = rttMs === undefined ? undefined : { id: one.id, kind: one.kind, rttMs };
        const better = way && one !== current && one.retryAt <= at && isBetter(here, way);
        one.wins = better ? one.wins + 1 : 0;
        if (!better) continue;
        if (one.wins < rounds) unproven = true;
        else if (!best || precedes(way, best)) best = way;
      }
      if (!best) return { move: null, why: unproven ? 'unproven' : 'best' };
      if (at < settleUntil()) return { move: null, why: 'too-soon' };
      return { move: best.id, gainMs: now - best.rttMs, why: reasonToMove(here, best)! };
    },
    rtt(id) {
      const one = known.get(id);
      return one && median(one);
    },
    ranking(at) {
      const order = (one: Known) => median(one) ?? Number.POSITIVE_INFINITY;
      return [...known.values()]
        .filter((one) => one.retryAt <= at)
        .sort((one, other) => (order(one) === order(other) ? 0 : order(one) - order(other)))
        .map(({ id }) => id);
    },
    forget() {
      moves = [];
      for (const one of known.values()) Object.assign(one, { samples: [], wins: 0, failures: 0, retryAt: 0 });
    },
  };

  /** The active one stays, for what is better than it; once it is left there is no way back. */
  function forgetWithdrawn(): void {
    for (const id of known.keys()) if (!offered.has(id) && id !== active) known.delete(id);
  }

  function holdOff(one: Known, at: number): void {
    one.retryAt = at + Math.min(memoryMs, retryMs * 2 ** one.failures);
    one.failures++;
  }
}
