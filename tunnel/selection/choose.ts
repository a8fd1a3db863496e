import type { PathKind } from '../pipe/path.ts';
import { type PathId, pathKey } from './path-id.ts';

/**
 * Decides which path a session should use: a state machine without I/O or time of its own; steer.ts measures, asks it
 * and moves. Measurements are round trips in milliseconds, `at` is monotonic milliseconds.
 *
 * It moves when another path was better by 10 ms or 10 % in three consecutive rounds. direct-tcp only has to be no
 * slower than the relay, since it spares a satellite. direct-udp has to be better by more, and is left for less,
 * because SCTP carries far less than the kernel's TCP (bench/loss.ts, 20 ms each way: a third on a clean line, a
 * twentieth with 0.1 % loss). Moves keep a minimum distance, which grows with each move.
 */
export interface Chooser {
  /** Sets the available paths. Others are forgotten, except the active one. */
  offer(candidates: readonly PathId[]): void;
  /** Records a measurement; null if the path is not available. */
  sample(id: PathId, rttMs: number | null, at: number): void;
  /** The session now uses this path: by choice, or because it opened or resumed there. */
  use(id: PathId, at: number, by: 'choice' | 'need'): void;
  /** The path broke or could not be moved to. It is held off, longer each time. */
  failed(id: PathId, at: number): void;
  /** Call once after each round of measurements. */
  decide(at: number): Decision;
  /** The expected round trip of a path, if known. */
  rtt(id: PathId): number | undefined;
  /** All paths that may be tried now, best first, unmeasured ones last. */
  ranking(at: number): PathId[];
  /** Discards all measurements, because the network changed. */
  forget(): void;
}

export type Decision =
  /** `direct`: no slower than the relay. `tcp`: hardly slower than UDP, with more throughput. */
  | { move: PathId; gainMs: number; why: 'faster' | 'direct' | 'tcp' }
  | { move: null; why: 'best' | 'too-soon' | 'unproven' | 'not-measured' };

/** A gain that is noticeable while typing. */
export const gainMs = 10;
/** Or a tenth of a short round trip, unless that is less than the jitter of a busy CPU. */
const gainShare = 0.1;
const noiseMs = 1;
/** direct-udp must gain this share of the round trip over TCP, or an amount that is always noticeable. */
const udpGainShare = 0.25;
const udpGainMs = 30;
/** UDP is left for TCP paths up to this much slower. Less than gainMs, so that moves cannot form a cycle. */
const tcpLossMs = 5;
/** Consecutive wins needed: one or two fast samples may be chance. */
export const rounds = 3;
/** Minimum time between two moves by choice, doubled with each move within `memoryMs`. */
export const dwellMs = 30_000;
export const memoryMs = 600_000;
/** A failed path is retried after this, doubled each time, up to `memoryMs`. */
export const retryMs = 30_000;
/** The expected round trip is the median of this many samples, which ignores one that got stuck in a queue. */
const maxSamples = 5;

interface KnownPath {
  id: PathId;
  samples: number[];
  /** Consecutive rounds in which it was better than the active path. */
  wins: number;
  failures: number;
  retryAt: number;
}

export interface PathRtt {
  kind: PathKind;
  rttMs: number;
}

/** True if `other` is better than `current` by enough to move. */
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

/** Compares two paths that are both better than the active one. */
function precedes(one: PathRtt, best: PathRtt): boolean {
  if (isUdp(one) && !isUdp(best)) return isBetter(best, one);
  if (!isUdp(one) && isUdp(best)) return !isBetter(one, best);
  return one.rttMs < best.rttMs;
}

export function makeChooser(): Chooser {
  const known = new Map<string, KnownPath>();
  let offered = new Set<string>();
  let active: string | undefined;
  /** Times of recent moves by choice. */
  let moves: number[] = [];

  const median = ({ samples }: KnownPath) =>
    samples.length === 0 ? undefined : [...samples].sort((one, other) => one - other)[samples.length >> 1];

  function settleUntil(): number {
    const last = moves.at(-1);
    return last === undefined ? Number.NEGATIVE_INFINITY : last + dwellMs * 2 ** (moves.length - 1);
  }

  return {
    offer(candidates) {
      offered = new Set(candidates.map(pathKey));
      forgetWithdrawn();
      for (const id of candidates)
        if (!known.has(pathKey(id)))
          known.set(pathKey(id), { id, samples: [], wins: 0, failures: 0, retryAt: 0 });
    },
    sample(id, rttMs, at) {
      const one = known.get(pathKey(id));
      if (!one) return;
      if (rttMs === null) {
        one.samples = [];
        one.wins = 0;
        if (pathKey(id) !== active) holdOff(one, at);
        return;
      }
      one.samples.push(rttMs);
      if (one.samples.length > maxSamples) one.samples.shift();
    },
    use(id, at, by) {
      active = pathKey(id);
      forgetWithdrawn();
      for (const one of known.values()) one.wins = 0;
      moves = moves.filter((each) => at - each < memoryMs);
      if (by === 'choice') moves.push(at);
    },
    failed(id, at) {
      const one = known.get(pathKey(id));
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
      // It has worked for long since it last failed.
      if (current.failures > 0 && at - current.retryAt > memoryMs) current.failures = 0;
      const here: PathRtt = { kind: current.id.kind, rttMs: now };
      let best: (PathRtt & { id: PathId }) | undefined;
      let unproven = false;
      for (const one of known.values()) {
        const rttMs = median(one);
        const other = rttMs === undefined ? undefined : { id: one.id, kind: one.id.kind, rttMs };
        const better = other && one !== current && one.retryAt <= at && isBetter(here, other);
        one.wins = better ? one.wins + 1 : 0;
        if (!better) continue;
        if (one.wins < rounds) unproven = true;
        else if (!best || precedes(other, best)) best = other;
      }
      if (!best) return { move: null, why: unproven ? 'unproven' : 'best' };
      if (at < settleUntil()) return { move: null, why: 'too-soon' };
      return { move: best.id, gainMs: now - best.rttMs, why: reasonToMove(here, best)! };
    },
    rtt(id) {
      const one = known.get(pathKey(id));
      return one && median(one);
    },
    ranking(at) {
      const order = (one: KnownPath) => median(one) ?? Number.POSITIVE_INFINITY;
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

  /** The active path stays as the basis for comparison; once it is left it cannot be chosen again. */
  function forgetWithdrawn(): void {
    for (const key of known.keys()) if (!offered.has(key) && key !== active) known.delete(key);
  }

  function holdOff(one: KnownPath, at: number): void {
    one.retryAt = at + Math.min(memoryMs, retryMs * 2 ** one.failures);
    one.failures++;
  }
}
