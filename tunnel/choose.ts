import type { PathKind } from './path.ts';

/**
 * Which of several paths a session should be on, as a state machine without any I/O or time of its own:
 * steer.ts measures, asks, and moves. Measurements are round trips in milliseconds, `at` is milliseconds that
 * only go forward.
 *
 * It moves when another path has been better in three rounds running, by 10 ms or 10 %; or, for a direct one,
 * when it is no slower, since it spares a satellite. Never soon after the last move, and later each time.
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
  | { move: string; gainMs: number; why: 'faster' | 'direct' }
  | { move: null; why: 'best' | 'too-soon' | 'unproven' | 'not-measured' };

/** A gain that a person at a keyboard may notice. */
export const gainMs = 10;
/** Or a tenth, where the whole is little; but less than a busy processor adds is no gain at all. */
const gainShare = 0.1;
export const noiseMs = 1;
/** One quick sample, or two, is chance. */
export const rounds = 3;
/** The least time between two moves by choice, doubled with each within `memoryMs`. */
export const dwellMs = 30_000;
export const memoryMs = 600_000;
/** A path that failed is tried again after this, doubled each time, up to `memoryMs`. */
export const retryMs = 30_000;
/** The median of so many samples is what is expected: one that got stuck in a queue does not count. */
const keptSamples = 5;

interface Known extends Candidate {
  samples: number[];
  /** For how many rounds running it has been better than the active one. */
  wins: number;
  failures: number;
  retryAt: number;
}

/** True when `other` ms is so much better than `current` ms that to move is worth it. */
export function isBetter(current: number, other: number, becomesDirect: boolean): boolean {
  const gain = current - other;
  if (gain >= gainMs) return true;
  if (gain >= noiseMs && gain >= gainShare * current) return true;
  return becomesDirect && gain > -noiseMs;
}

const isDirect = (kind: PathKind) => kind !== 'relay';

/** Where both may be had, TCP comes first: the kernel carries more, and for less, than we do. */
function precedes(one: { one: Candidate; rtt: number }, best: { one: Candidate; rtt: number }): boolean {
  if (one.one.kind === 'direct-udp' && best.one.kind === 'direct-tcp')
    return isBetter(best.rtt, one.rtt, false);
  if (one.one.kind === 'direct-tcp' && best.one.kind === 'direct-udp')
    return !isBetter(one.rtt, best.rtt, false);
  return one.rtt < best.rtt;
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
        if (id !== active) leaveAlone(one, at);
        return;
      }
      one.samples.push(rttMs);
      if (one.samples.length > keptSamples) one.samples.shift();
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
      leaveAlone(one, at);
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
      let best: { one: Known; rtt: number } | undefined;
      let unproven = false;
      for (const one of known.values()) {
        const rtt = median(one);
        const better =
          one !== current &&
          rtt !== undefined &&
          one.retryAt <= at &&
          isBetter(now, rtt, isDirect(one.kind) && !isDirect(current.kind));
        one.wins = better ? one.wins + 1 : 0;
        if (!better) continue;
        if (one.wins < rounds) unproven = true;
        else if (!best || precedes({ one, rtt }, best)) best = { one, rtt };
      }
      if (!best) return { move: null, why: unproven ? 'unproven' : 'best' };
      if (at < settleUntil()) return { move: null, why: 'too-soon' };
      return {
        move: best.one.id,
        gainMs: now - best.rtt,
        why: isBetter(now, best.rtt, false) ? 'faster' : 'direct',
      };
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

  function leaveAlone(one: Known, at: number): void {
    one.retryAt = at + Math.min(memoryMs, retryMs * 2 ** one.failures);
    one.failures++;
  }
}
