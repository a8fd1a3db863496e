import type { PathKind } from '../pipe/path.ts';
import type { Decision } from './choose.ts';
import { isSamePath, type PathId, relayPath, tcpPath, udpPath } from './path-id.ts';

/**
 * When a session measures its paths, moves, and keeps a relay in reserve: a state machine whose transitions are pure.
 * steer.ts feeds it events and performs the effects. choose.ts decides which path is best.
 *
 *     stopped ─start─▶ starting ─woke─▶ measuring ─measured─▶ moving ─▶ reserving ─▶ sleeping ─woke─▶ measuring …
 */
export interface SteerState {
  phase: 'stopped' | 'starting' | 'sleeping' | 'measuring' | 'moving' | 'reserving' | 'closed';
  active: PathId;
  /** The pipe has no path. */
  isDetached: boolean;
  /** A session that may not use the relay opens through one, and may return to it only until it has left. */
  hasLeftRelay: boolean;
  hasReserve: boolean;
  /** No new reserve is opened before this time. */
  reserveRetryAt: number;
  /** Rounds that still follow at the short interval. */
  quickRounds: number;
  rounds: number;
  /** The last round: when it ended, and the session's traffic by then. */
  lastRoundAt: number;
  lastBytes: number;
  /** Some path was better in the current round, but not yet in enough of them. */
  isUnproven: boolean;
  /** Until then a lost path is looked for, even without traffic. */
  searchUntil: number;
  /** The addresses of this machine as of the last round. */
  network: string;
  /** When a ticket was last renewed to learn of new satellites. */
  ticketRenewedAt: number;
}

export interface SteerTimes {
  /** From the opening to the first measurements; sessions of one short command are over by then. */
  firstMs: number;
  /** Between rounds while a better path proves itself. */
  quickMs: number;
  /** Between rounds of a session in use. */
  slowMs: number;
  /** Between rounds of a session without traffic. */
  idleMs: number;
  /** Timeout for a satellite's response. */
  probeMs: number;
  /** How long a session that requires a direct path waits for the agent's offer. */
  offerMs: number;
}

export const defaultTimes: SteerTimes = {
  firstMs: 300,
  quickMs: 500,
  slowMs: 30_000,
  idleMs: 1_800_000,
  probeMs: 2_000,
  offerMs: 5_000,
};

/** Quick rounds after any change: the three that the chooser needs, and one to spare. */
export const quickRounds = 4;
/** All satellites are measured in every tenth round, only the nearest in the others. */
const fullRoundEvery = 10;
/** Wait before a lost reserve is replaced. */
const reserveRetryMs = 10_000;
/** A lost path is looked for during this time, which covers several retries (choose.ts). */
const searchMs = 300_000;
/** The satellite is at fault, so its path must not be preferred over another satellite's. */
const satelliteFaults: ReadonlySet<string> = new Set([
  'satellite-restarted',
  'satellite-draining',
  'satellite-overloaded',
]);

export type SteerEvent =
  /** Starts the rounds. */
  | { type: 'start' }
  /** A sleep ended, or was interrupted. */
  | { type: 'woke'; hasUnknownSatellite: boolean }
  /** A round of measurements ended; without a decision if the pipe lost its path. */
  | { type: 'measured'; decision: Decision | null }
  | { type: 'moved'; path: PathId }
  | { type: 'move-failed' }
  | { type: 'reserve-changed'; isOpen: boolean }
  /** The attempt to open a reserve ended. */
  | { type: 'reserve-attempted' }
  | { type: 'offer-changed' }
  | { type: 'udp-searched' }
  | { type: 'lost'; code: string }
  /** The routes for reconnecting were requested. */
  | { type: 'reconnecting' }
  | { type: 'resumed'; path: PathId }
  | { type: 'closed' };

/** What the outside world looks like when an event occurs. */
export interface Observation {
  at: number;
  /** Sent and received by the session so far. */
  bytes: number;
  network: string;
}

export type SteerEffect =
  | { do: 'sleep'; ms: number }
  /** Interrupts the current sleep. */
  | { do: 'wake' }
  /** Discards all measurements and drops the UDP candidate. */
  | { do: 'reset-measurements' }
  /** Makes the chooser forget, but keeps what was measured for the history. */
  | { do: 'reset-choices' }
  | { do: 'measure'; allSatellites: boolean; renewTicket: boolean }
  | { do: 'publish-paths' }
  | { do: 'release-udp' }
  | { do: 'drop-udp' }
  | { do: 'move'; decision: Extract<Decision, { move: PathId }> }
  | { do: 'cancel-move' }
  | { do: 'open-reserve' }
  | { do: 'drop-reserve' }
  /** Tells the chooser that the path failed. */
  | { do: 'hold-off'; path: PathId };

export interface SteerConfig {
  times: SteerTimes;
  paths: readonly PathKind[];
}

export interface Transition {
  state: SteerState;
  effects: SteerEffect[];
}

export function initialState(active: PathId, network: string): SteerState {
  return {
    phase: 'stopped',
    active,
    isDetached: false,
    hasLeftRelay: false,
    hasReserve: false,
    reserveRetryAt: 0,
    quickRounds,
    rounds: 0,
    lastRoundAt: Number.NEGATIVE_INFINITY,
    lastBytes: -1,
    isUnproven: false,
    searchUntil: Number.NEGATIVE_INFINITY,
    network,
    ticketRenewedAt: Number.NEGATIVE_INFINITY,
  };
}

export function transition(
  state: SteerState,
  event: SteerEvent,
  now: Observation,
  config: SteerConfig,
): Transition {
  if (state.phase === 'closed') return { state, effects: [] };
  switch (event.type) {
    case 'start':
      return {
        state: { ...state, phase: 'starting' },
        effects: [{ do: 'sleep', ms: config.times.firstMs }],
      };
    case 'woke':
      return onWoke(state, event.hasUnknownSatellite, now, config);
    case 'measured':
      return onMeasured(state, event.decision, now, config);
    case 'moved': {
      const moved = { ...withActive(state, event.path) };
      return state.phase === 'moving' ? checkReserve(moved, now, config) : { state: moved, effects: [] };
    }
    case 'move-failed':
      return state.phase === 'moving' ? checkReserve(state, now, config) : { state, effects: [] };
    case 'reserve-changed':
      return { state: { ...state, hasReserve: event.isOpen }, effects: [] };
    case 'reserve-attempted':
      return state.phase === 'reserving' ? endRound(state, now, config) : { state, effects: [] };
    case 'offer-changed':
      return withQuickRounds(state, [{ do: 'publish-paths' }]);
    case 'udp-searched':
      return withQuickRounds(state, []);
    case 'lost':
      return onLost(state, event.code, now);
    case 'reconnecting':
      return { state, effects: now.network === state.network ? [] : onOtherNetwork };
    case 'resumed': {
      const resumed = { ...withActive(state, event.path), isDetached: false, quickRounds };
      const isAsleep = state.phase === 'sleeping' || state.phase === 'starting';
      return { state: resumed, effects: isAsleep ? [{ do: 'wake' }] : [] };
    }
    case 'closed':
      return {
        state: { ...state, phase: 'closed' },
        effects: [{ do: 'cancel-move' }, { do: 'wake' }, { do: 'drop-udp' }, { do: 'drop-reserve' }],
      };
  }
}

/** Measurements of the previous network say nothing about this one. */
const onOtherNetwork: SteerEffect[] = [{ do: 'reset-choices' }, { do: 'drop-udp' }, { do: 'drop-reserve' }];

function withActive(state: SteerState, path: PathId): SteerState {
  return { ...state, active: path, hasLeftRelay: state.hasLeftRelay || path.kind !== 'relay' };
}

/** Something changed: measure now, and often enough for it to count. */
function withQuickRounds(state: SteerState, effects: SteerEffect[]): Transition {
  return {
    state: { ...state, quickRounds },
    effects: state.phase === 'sleeping' ? [...effects, { do: 'wake' }] : effects,
  };
}

function onWoke(
  state: SteerState,
  hasUnknownSatellite: boolean,
  now: Observation,
  config: SteerConfig,
): Transition {
  if (state.phase !== 'starting' && state.phase !== 'sleeping') return { state, effects: [] };
  const { slowMs, idleMs } = config.times;
  const isNewNetwork = now.network !== state.network;
  const isUnused = now.bytes === state.lastBytes && now.at >= state.searchUntil;
  const isIdle = isUnused && state.quickRounds <= 0 && !isNewNetwork;
  // An idle session measures next to nothing, so that leaving it open costs only heartbeats.
  if (isIdle && now.at - state.lastRoundAt < idleMs)
    return { state: { ...state, phase: 'sleeping' }, effects: [{ do: 'sleep', ms: slowMs }] };
  if (state.isDetached) return endRound({ ...state, isUnproven: false }, now, config);
  const renewTicket = hasUnknownSatellite && now.at - state.ticketRenewedAt >= 10 * slowMs;
  return {
    state: {
      ...state,
      phase: 'measuring',
      network: now.network,
      rounds: state.rounds + 1,
      quickRounds: isNewNetwork ? quickRounds : state.quickRounds,
      isUnproven: false,
      ticketRenewedAt: renewTicket ? now.at : state.ticketRenewedAt,
    },
    effects: [
      ...(isNewNetwork ? [{ do: 'reset-measurements' } as const] : []),
      { do: 'measure', allSatellites: state.rounds % fullRoundEvery === 0, renewTicket },
    ],
  };
}

function onMeasured(
  state: SteerState,
  decision: Decision | null,
  now: Observation,
  config: SteerConfig,
): Transition {
  if (state.phase !== 'measuring') return { state, effects: [] };
  if (!decision || state.isDetached) return endRound(state, now, config);
  if (decision.move !== null)
    return { state: { ...state, phase: 'moving' }, effects: [{ do: 'move', decision }] };
  const next = checkReserve({ ...state, isUnproven: decision.why === 'unproven' }, now, config);
  const isSettled = decision.why === 'best' && state.quickRounds <= 1;
  return isSettled ? { ...next, effects: [{ do: 'release-udp' }, ...next.effects] } : next;
}

/** The last step of a round: a direct path has a relay in reserve, a relay has none. */
function checkReserve(state: SteerState, now: Observation, config: SteerConfig): Transition {
  if (state.isDetached) return endRound(state, now, config);
  const isWanted = state.active.kind !== 'relay' && config.paths.includes('relay');
  if (isWanted && !state.hasReserve && now.at >= state.reserveRetryAt)
    return {
      state: { ...state, phase: 'reserving', reserveRetryAt: now.at + reserveRetryMs },
      effects: [{ do: 'open-reserve' }],
    };
  const next = endRound(state, now, config);
  return isWanted || !state.hasReserve
    ? next
    : { ...next, effects: [{ do: 'drop-reserve' }, ...next.effects] };
}

function endRound(state: SteerState, now: Observation, { times }: SteerConfig): Transition {
  const remaining = state.isUnproven ? state.quickRounds : state.quickRounds - 1;
  const isQuick = state.isUnproven || remaining > 0;
  return {
    state: {
      ...state,
      phase: 'sleeping',
      quickRounds: remaining,
      lastRoundAt: now.at,
      // An unproven path is measured again even if nothing is sent until then.
      lastBytes: state.isUnproven ? -1 : now.bytes,
    },
    effects: [{ do: 'sleep', ms: isQuick ? times.quickMs : times.slowMs }],
  };
}

function onLost(state: SteerState, code: string, now: Observation): Transition {
  const { active } = state;
  const effects: SteerEffect[] = [{ do: 'cancel-move' }];
  // A candidate over the same network would fail as well, and count twice.
  if (active.kind === 'direct-udp') effects.push({ do: 'drop-udp' });
  if (active.kind !== 'relay' || satelliteFaults.has(code)) effects.push({ do: 'hold-off', path: active });
  return { state: { ...state, isDetached: true, searchUntil: now.at + searchMs }, effects };
}

/** One attempt at reconnecting: over the open reserve, by dialling a path, or by arranging a new UDP path. */
export interface Attempt {
  path: PathId;
  by: 'reserve' | 'dial' | 'signaling';
}

/**
 * The order in which a lost session tries its paths: the reserve, then what was measured best, then the rest. Paths
 * that are held off come last, except that a new connection to the reserve's satellite stays in its place.
 */
export function reconnectOrder(
  state: SteerState,
  config: SteerConfig,
  known: {
    reserve: PathId | undefined;
    ranking: readonly PathId[];
    satellites: readonly { url: string }[];
    addresses: readonly string[];
    isUdpAllowed: boolean;
  },
): Attempt[] {
  const mayUseRelay = config.paths.includes('relay') || !state.hasLeftRelay;
  const paths: PathId[] = [];
  for (const path of [
    ...known.ranking,
    ...known.satellites.map(({ url }) => relayPath(url)),
    ...known.addresses.map(tcpPath),
  ])
    if (!paths.some((each) => isSamePath(each, path))) paths.push(path);
  const attempts: Attempt[] = [];
  if (known.reserve && mayUseRelay) attempts.push({ path: known.reserve, by: 'reserve' });
  for (const path of paths) if (path.kind !== 'relay' || mayUseRelay) attempts.push({ path, by: 'dial' });
  if (!mayUseRelay && known.isUdpAllowed) attempts.push({ path: udpPath, by: 'signaling' });
  return attempts;
}
