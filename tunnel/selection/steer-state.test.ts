import { describe, expect, it } from 'vitest';
import { type PathId, relayPath, tcpPath, udpPath } from './path-id.ts';
import {
  defaultTimes,
  initialState,
  type Observation,
  reconnectOrder,
  type SteerConfig,
  type SteerEffect,
  type SteerEvent,
  type SteerState,
  transition,
} from './steer-state.ts';

const relay = relayPath('https://eu');
const other = relayPath('https://us');
const direct = tcpPath('10.0.0.1:7000');
const { firstMs, quickMs, slowMs, idleMs } = defaultTimes;
const config: SteerConfig = { times: defaultTimes, paths: ['relay', 'direct-tcp', 'direct-udp'] };
const directOnly: SteerConfig = { ...config, paths: ['direct-tcp', 'direct-udp'] };

const start = initialState(relay, 'home');
/** A session in its slow rounds, the last of which ended at 1,000,000 ms. */
const asleep: SteerState = {
  ...start,
  phase: 'sleeping',
  quickRounds: 0,
  rounds: 7,
  lastRoundAt: 1_000_000,
  lastBytes: 500,
};
const measuring: SteerState = { ...asleep, phase: 'measuring' };
const onDirect = { active: direct, hasLeftRelay: true };

const woke: SteerEvent = { type: 'woke', hasUnknownSatellite: false };
const best: SteerEvent = { type: 'measured', decision: { move: null, why: 'best' } };
const unproven: SteerEvent = { type: 'measured', decision: { move: null, why: 'unproven' } };
const decision = { move: direct, gainMs: 12, why: 'faster' } as const;
const sleep = (ms: number): SteerEffect => ({ do: 'sleep', ms });
const measure = (allSatellites: boolean, renewTicket = false): SteerEffect => ({
  do: 'measure',
  allSatellites,
  renewTicket,
});

interface Row {
  name: string;
  state: SteerState;
  event: SteerEvent;
  now?: Partial<Observation>;
  config?: SteerConfig;
  next: Partial<SteerState>;
  effects: SteerEffect[];
}

const table: Record<string, Row[]> = {
  'the rounds': [
    {
      name: 'start after a moment, as most sessions are short',
      state: start,
      event: { type: 'start' },
      next: { phase: 'starting' },
      effects: [sleep(firstMs)],
    },
    {
      name: 'begin with a full one',
      state: { ...start, phase: 'starting' },
      event: woke,
      next: { phase: 'measuring', rounds: 1 },
      effects: [measure(true)],
    },
    {
      name: 'measure the nearest satellites in between',
      state: { ...asleep, quickRounds: 2 },
      event: woke,
      next: { phase: 'measuring', rounds: 8 },
      effects: [measure(false)],
    },
    {
      name: 'measure all satellites in every tenth',
      state: { ...asleep, quickRounds: 2, rounds: 10 },
      event: woke,
      next: { rounds: 11 },
      effects: [measure(true)],
    },
    {
      name: 'pause while nothing is sent',
      state: asleep,
      event: woke,
      now: { at: 1_030_000 },
      next: { phase: 'sleeping', rounds: 7, lastRoundAt: 1_000_000 },
      effects: [sleep(slowMs)],
    },
    {
      name: 'resume with traffic',
      state: asleep,
      event: woke,
      now: { bytes: 501 },
      next: { phase: 'measuring' },
      effects: [measure(false)],
    },
    {
      name: 'resume now and then without traffic',
      state: asleep,
      event: woke,
      now: { at: 1_000_000 + idleMs },
      next: { phase: 'measuring' },
      effects: [measure(false)],
    },
    {
      name: 'look for a lost path even without traffic',
      state: { ...asleep, searchUntil: 1_100_000 },
      event: woke,
      now: { at: 1_030_000 },
      next: { phase: 'measuring' },
      effects: [measure(false)],
    },
    {
      name: 'discard everything on another network',
      state: asleep,
      event: woke,
      now: { network: 'office' },
      next: { phase: 'measuring', network: 'office', quickRounds: 4 },
      effects: [{ do: 'reset-measurements' }, measure(false)],
    },
    {
      name: 'are skipped without a path',
      state: { ...asleep, isDetached: true, quickRounds: 3 },
      event: woke,
      now: { at: 1_000_500 },
      next: { phase: 'sleeping', rounds: 7, quickRounds: 2, lastRoundAt: 1_000_500 },
      effects: [sleep(quickMs)],
    },
    {
      name: 'renew the ticket to learn of a new satellite',
      state: { ...asleep, quickRounds: 1 },
      event: { type: 'woke', hasUnknownSatellite: true },
      now: { at: 1_000_500 },
      next: { ticketRenewedAt: 1_000_500 },
      effects: [measure(false, true)],
    },
    {
      name: 'renew the ticket only so often',
      state: { ...asleep, quickRounds: 1, ticketRenewedAt: 1_000_000 },
      event: { type: 'woke', hasUnknownSatellite: true },
      now: { at: 1_000_000 + 10 * slowMs - 1 },
      next: { ticketRenewedAt: 1_000_000 },
      effects: [measure(false)],
    },
    {
      name: 'are not interrupted by a late timer',
      state: measuring,
      event: woke,
      next: { phase: 'measuring' },
      effects: [],
    },
  ],
  'a measured round': [
    {
      name: 'moves to a better path',
      state: measuring,
      event: { type: 'measured', decision },
      next: { phase: 'moving' },
      effects: [{ do: 'move', decision }],
    },
    {
      name: 'ends on the best path, and gives up a UDP candidate that is not used',
      state: measuring,
      event: best,
      now: { at: 1_030_000, bytes: 900 },
      next: { phase: 'sleeping', lastRoundAt: 1_030_000, lastBytes: 900, quickRounds: -1 },
      effects: [{ do: 'release-udp' }, sleep(slowMs)],
    },
    {
      name: 'keeps the UDP candidate while quick rounds follow',
      state: { ...measuring, quickRounds: 3 },
      event: best,
      next: { quickRounds: 2 },
      effects: [sleep(quickMs)],
    },
    {
      name: 'is repeated soon for a better path that is not proven, even without traffic',
      state: { ...measuring, quickRounds: 1 },
      event: unproven,
      next: { quickRounds: 1, lastBytes: -1 },
      effects: [sleep(quickMs)],
    },
    {
      name: 'counts for nothing if the path was lost meanwhile',
      state: { ...measuring, isDetached: true },
      event: { type: 'measured', decision: null },
      next: { phase: 'sleeping' },
      effects: [sleep(slowMs)],
    },
    {
      name: 'opens a reserve for a direct path',
      state: { ...measuring, ...onDirect, quickRounds: 3 },
      event: best,
      now: { at: 1_030_000 },
      next: { phase: 'reserving', reserveRetryAt: 1_040_000 },
      effects: [{ do: 'open-reserve' }],
    },
    {
      name: 'opens no second reserve',
      state: { ...measuring, ...onDirect, quickRounds: 3, hasReserve: true },
      event: best,
      next: { phase: 'sleeping', hasReserve: true },
      effects: [sleep(quickMs)],
    },
    {
      name: 'waits before it replaces a lost reserve',
      state: { ...measuring, ...onDirect, quickRounds: 3, reserveRetryAt: 1_000_001 },
      event: best,
      next: { phase: 'sleeping' },
      effects: [sleep(quickMs)],
    },
    {
      name: 'opens no reserve if the relay is not allowed',
      state: { ...measuring, ...onDirect, quickRounds: 3 },
      event: best,
      config: directOnly,
      next: { phase: 'sleeping' },
      effects: [sleep(quickMs)],
    },
    {
      name: 'drops the reserve of a session on a relay',
      state: { ...measuring, quickRounds: 3, hasReserve: true },
      event: best,
      next: { phase: 'sleeping' },
      effects: [{ do: 'drop-reserve' }, sleep(quickMs)],
    },
  ],
  'a move': [
    {
      name: 'to a direct path is followed by a reserve',
      state: { ...measuring, phase: 'moving' },
      event: { type: 'moved', path: direct },
      next: { phase: 'reserving', active: direct, hasLeftRelay: true },
      effects: [{ do: 'open-reserve' }],
    },
    {
      name: 'that failed ends the round',
      state: { ...measuring, phase: 'moving' },
      event: { type: 'move-failed' },
      next: { phase: 'sleeping', active: relay, hasLeftRelay: false },
      effects: [sleep(slowMs)],
    },
    {
      name: 'outside a round only changes the path',
      state: start,
      event: { type: 'moved', path: direct },
      config: directOnly,
      next: { phase: 'stopped', active: direct, hasLeftRelay: true },
      effects: [],
    },
    {
      name: 'waits for the attempt at a reserve to end',
      state: { ...asleep, ...onDirect, phase: 'reserving' },
      event: { type: 'reserve-changed', isOpen: true },
      next: { phase: 'reserving', hasReserve: true },
      effects: [],
    },
    {
      name: 'ends with that attempt',
      state: { ...asleep, ...onDirect, phase: 'reserving', hasReserve: true },
      event: { type: 'reserve-attempted' },
      next: { phase: 'sleeping', hasReserve: true },
      effects: [sleep(slowMs)],
    },
  ],
  news: [
    {
      name: 'in an offer is measured at once',
      state: asleep,
      event: { type: 'offer-changed' },
      next: { quickRounds: 4 },
      effects: [{ do: 'publish-paths' }, { do: 'wake' }],
    },
    {
      name: 'in an offer waits for the first round',
      state: { ...start, phase: 'starting' },
      event: { type: 'offer-changed' },
      next: { phase: 'starting' },
      effects: [{ do: 'publish-paths' }],
    },
    {
      name: 'during a round counts for the next',
      state: measuring,
      event: { type: 'udp-searched' },
      next: { phase: 'measuring', quickRounds: 4 },
      effects: [],
    },
    {
      name: 'of a UDP path is measured at once',
      state: asleep,
      event: { type: 'udp-searched' },
      next: { quickRounds: 4 },
      effects: [{ do: 'wake' }],
    },
  ],
  'a lost path': [
    {
      name: 'that was direct is held off, and searched for',
      state: { ...asleep, ...onDirect },
      event: { type: 'lost', code: 'path-lost' },
      next: { isDetached: true, searchUntil: 1_300_000 },
      effects: [{ do: 'cancel-move' }, { do: 'hold-off', path: direct }],
    },
    {
      name: 'by UDP takes its candidate with it',
      state: { ...asleep, active: udpPath, hasLeftRelay: true },
      event: { type: 'lost', code: 'path-lost' },
      next: { isDetached: true },
      effects: [{ do: 'cancel-move' }, { do: 'drop-udp' }, { do: 'hold-off', path: udpPath }],
    },
    {
      name: 'through a relay is not held off for a fault of the network',
      state: asleep,
      event: { type: 'lost', code: 'satellite-lost' },
      next: { isDetached: true },
      effects: [{ do: 'cancel-move' }],
    },
    {
      name: 'through a relay is held off for a fault of the satellite',
      state: asleep,
      event: { type: 'lost', code: 'satellite-draining' },
      next: { isDetached: true },
      effects: [{ do: 'cancel-move' }, { do: 'hold-off', path: relay }],
    },
    {
      name: 'keeps its measurements on the same network',
      state: { ...asleep, isDetached: true },
      event: { type: 'reconnecting' },
      next: {},
      effects: [],
    },
    {
      name: 'loses them on another network',
      state: { ...asleep, isDetached: true },
      event: { type: 'reconnecting' },
      now: { network: 'office' },
      // The next round discards the rest.
      next: { network: 'home' },
      effects: [{ do: 'reset-choices' }, { do: 'drop-udp' }, { do: 'drop-reserve' }],
    },
    {
      name: 'is replaced, and a better one looked for at once',
      state: { ...asleep, ...onDirect, isDetached: true },
      event: { type: 'resumed', path: other },
      next: { active: other, isDetached: false, hasLeftRelay: true, quickRounds: 4 },
      effects: [{ do: 'wake' }],
    },
    {
      name: 'is replaced while a move is being cancelled',
      state: { ...measuring, phase: 'moving', isDetached: true },
      event: { type: 'resumed', path: direct },
      next: { phase: 'moving', active: direct, hasLeftRelay: true },
      effects: [],
    },
  ],
  'a closed session': [
    {
      name: 'lets go of everything',
      state: asleep,
      event: { type: 'closed' },
      next: { phase: 'closed' },
      effects: [{ do: 'cancel-move' }, { do: 'wake' }, { do: 'drop-udp' }, { do: 'drop-reserve' }],
    },
    {
      name: 'ignores what follows',
      state: { ...asleep, phase: 'closed' },
      event: { type: 'offer-changed' },
      next: { phase: 'closed', quickRounds: 0 },
      effects: [],
    },
  ],
};

describe.each(Object.entries(table))('%s', (_title, rows) => {
  it.each(rows)('$name', (row) => {
    const now = { at: 1_000_000, bytes: 500, network: 'home', ...row.now };
    const before = structuredClone(row.state);
    const { state, effects } = transition(row.state, row.event, now, row.config ?? config);
    expect(effects).toEqual(row.effects);
    expect(state).toMatchObject(row.next);
    expect(row.state).toEqual(before);
  });
});

describe('the order of reconnecting', () => {
  const known = {
    reserve: undefined as PathId | undefined,
    ranking: [direct, other],
    satellites: [{ url: relay.via }, { url: other.via }],
    addresses: [direct.via, '10.0.0.2:7000'],
    isUdpAllowed: true,
  };
  const order = (state: SteerState, more: Partial<typeof known> = {}, using = config) =>
    reconnectOrder(state, using, { ...known, ...more }).map(
      ({ path, by }) => `${by} ${path.kind} ${path.via}`,
    );

  it('is the best measured path first, then every other one', () => {
    expect(order(asleep)).toEqual([
      'dial direct-tcp 10.0.0.1:7000',
      'dial relay https://us',
      'dial relay https://eu',
      'dial direct-tcp 10.0.0.2:7000',
    ]);
  });

  it('prefers the open reserve, and dials its satellite as well', () => {
    const attempts = order({ ...asleep, ...onDirect }, { reserve: other });
    expect(attempts.slice(0, 3)).toEqual([
      'reserve relay https://us',
      'dial direct-tcp 10.0.0.1:7000',
      'dial relay https://us',
    ]);
  });

  it('stays off a relay that is not allowed, once the session has left it', () => {
    expect(order(asleep, {}, directOnly)).toContain('dial relay https://eu');
    expect(order({ ...asleep, ...onDirect }, { reserve: other }, directOnly)).toEqual([
      'dial direct-tcp 10.0.0.1:7000',
      'dial direct-tcp 10.0.0.2:7000',
      'signaling direct-udp ICE',
    ]);
    expect(order({ ...asleep, ...onDirect }, { isUdpAllowed: false }, directOnly)).toHaveLength(2);
  });
});
