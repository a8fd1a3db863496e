import type { HostSample } from '@cde/api/diagnosis.ts';
import { beforeEach, expect, test } from 'vitest';
import { TunnelError } from '../errors.ts';
import type { PathChange } from '../selection/history.ts';
import type { RoundTrip } from '../session/session.ts';
import { type Recorder, recordSession } from './recorder.ts';

const begun = Date.parse('2026-11-30T09:00:00Z');
const satellite = { kind: 'relay', via: 'https://tokyo.example.com' } as const;
const host: HostSample = { loopDelayMs: 1, cpuWaitPercent: 0, throttledPercent: null, memoryPercent: null };

/** Clocks, a session and a machine that do what a test says. */
let clock: { wall: number; running: number; awake: number };
let tick: () => void;
let news: number;
let addresses: string;
let waited: number;
let answer: () => Promise<RoundTrip>;
let session: {
  path: typeof satellite;
  bytes: number;
  received: number;
  writes: number;
  closed: Promise<{ reason: 'session-closed'; error: TunnelError | null }>;
  roundTrip: () => Promise<RoundTrip>;
};
let close: (error: TunnelError | null) => void;
let recorder: Recorder;

const trip = (totalMs: number): RoundTrip => ({
  ...satellite,
  totalMs,
  clientMs: 10,
  agentMs: 14,
  agentMsIs: 'measured',
});
const settle = () => new Promise((resolve) => setImmediate(resolve));

/** Lets a second pass in which somebody types. */
async function second(
  options: { isUsed?: boolean; isSilent?: boolean; asleepMs?: number; lateMs?: number } = {},
) {
  const { isUsed = true, isSilent = false, asleepMs = 0, lateMs = 0 } = options;
  clock.wall += 1000 + asleepMs + lateMs;
  clock.awake += 1000 + asleepMs + lateMs;
  clock.running += 1000 + lateMs;
  if (isUsed) {
    session.writes += 1;
    session.bytes += 200;
    if (!isSilent) session.received += 100;
  }
  tick();
  await settle();
}
async function seconds(count: number, options: Parameters<typeof second>[0] = {}) {
  for (let each = 0; each < count; each++) await second(options);
}
const change = (what: PathChange['what'], reason = 'first'): PathChange => ({
  at: '',
  what,
  ...satellite,
  reason,
  text: '',
  measured: [],
});
const eventsAfterOpening = () => recorder.take()?.events.slice(1) ?? [];

beforeEach(async () => {
  clock = { wall: begun, running: 0, awake: 0 };
  news = 0;
  addresses = '192.0.2.1';
  waited = 0;
  answer = async () => trip(24);
  const closing = Promise.withResolvers<Awaited<typeof session.closed>>();
  close = (error) => closing.resolve({ reason: 'session-closed', error });
  session = {
    path: satellite,
    bytes: 0,
    received: 0,
    writes: 0,
    closed: closing.promise,
    roundTrip: () => answer(),
  };
  recorder = await recordSession(session as unknown as Parameters<typeof recordSession>[0], {
    onNews: () => void news++,
    times: { wall: () => clock.wall, running: () => clock.running, awake: () => clock.awake },
    every: (_ms, each) => {
      tick = each;
      return () => {};
    },
    host: { late() {}, sample: async () => host },
    addresses: () => addresses,
    waited: async () => waited,
  });
});

test('each leg is sampled every second, in windows of ten', async () => {
  await seconds(20);
  const { windows, events } = recorder.take()!;
  expect(events).toEqual([{ kind: 'opened', at: begun, path: satellite }]);
  expect(windows).toHaveLength(2);
  expect(windows[1]).toEqual({
    at: begun + 10_000,
    ms: 10_000,
    path: satellite,
    toSatellite: { p50: 10, p95: 10, max: 10, count: 10, unanswered: 0 },
    satelliteToAgent: { p50: 14, p95: 14, max: 14, count: 10, unanswered: 0 },
    toAgent: { p50: 24, p95: 24, max: 24, count: 10, unanswered: 0 },
    bytes: 2000,
    host,
  });
  expect(recorder.take()).toBeNull();
});

test('a window that is slower than the best one is news at once', async () => {
  await seconds(20);
  expect(news).toBe(0);
  answer = async () => trip(150);
  await seconds(10);
  expect(news).toBe(1);
  answer = async () => trip(24);
  await seconds(10);
  expect(news).toBe(1);
});

test('a session that nobody uses is neither probed nor sampled', async () => {
  await second();
  await seconds(60, { isUsed: false });
  let probes = 0;
  answer = async () => {
    probes++;
    return trip(24);
  };
  recorder.take();
  await seconds(30, { isUsed: false });
  expect(probes).toBe(0);
  expect(recorder.take()).toBeNull();
});

test('sleep is recorded with its length', async () => {
  await second();
  await second({ asleepMs: 90_000 });
  expect(eventsAfterOpening()).toEqual([{ kind: 'slept', at: clock.wall, ms: 91_000 }]);
});

test('a program that is stopped, like one in a suspended container, slept too', async () => {
  await second();
  await second({ lateMs: 30_000 });
  expect(eventsAfterOpening()).toEqual([{ kind: 'slept', at: clock.wall, ms: 31_000 }]);
});

test('a machine without CPU time for this program did not sleep', async () => {
  await second();
  waited += 29_000;
  await second({ lateMs: 30_000 });
  expect(eventsAfterOpening()).toEqual([]);
});

test('a change of the network is recorded, and being offline is none', async () => {
  await second();
  addresses = '';
  await second();
  addresses = '198.51.100.4';
  await second();
  expect(eventsAfterOpening()).toEqual([{ kind: 'network-changed', at: clock.wall }]);
});

test('a loss is recorded with the silence before it, and the news come with the resume', async () => {
  await seconds(3);
  answer = () => new Promise(() => {});
  const heardAt = clock.wall;
  // Somebody types on.
  await seconds(4, { isSilent: true });
  recorder.changed(change('lost', 'satellite-lost'));
  expect(news).toBe(0);
  clock.wall += 500;
  recorder.changed(change('resumed'));
  expect(news).toBe(1);
  expect(eventsAfterOpening()).toEqual([
    { kind: 'lost', at: heardAt + 4000, path: satellite, reason: 'satellite-lost', silentMs: 4000 },
    { kind: 'resumed', at: heardAt + 4500, path: satellite },
  ]);
});

test('a change of the network is noticed with the loss that it causes', async () => {
  await seconds(3);
  addresses = '192.0.2.99';
  recorder.changed(change('lost', 'satellite-lost'));
  recorder.changed(change('resumed'));
  expect(eventsAfterOpening().map(({ kind }) => kind)).toEqual(['network-changed', 'lost', 'resumed']);
});

test('an answer that is late is a stall', async () => {
  const late = Promise.withResolvers<RoundTrip>();
  answer = () => late.promise;
  await second();
  answer = async () => trip(24);
  await seconds(2);
  late.resolve(trip(2_400));
  await settle();
  expect(eventsAfterOpening()).toEqual([{ kind: 'stalled', at: clock.wall, path: satellite, ms: 2_400 }]);
  expect(news).toBe(1);
});

test('an answer over a path that is gone says nothing about the new one', async () => {
  const late = Promise.withResolvers<RoundTrip>();
  answer = () => late.promise;
  await second();
  recorder.changed(change('lost', 'satellite-lost'));
  recorder.changed(change('resumed'));
  late.resolve(trip(9_000));
  await settle();
  expect(recorder.take()!.events.map(({ kind }) => kind)).toEqual(['opened', 'lost', 'resumed']);
});

test('the time without the server is recorded once it answers', async () => {
  recorder.serverAnswered(false);
  clock.wall += 5_000;
  recorder.serverAnswered(false);
  clock.wall += 5_000;
  recorder.serverAnswered(true);
  recorder.serverAnswered(true);
  expect(eventsAfterOpening()).toEqual([{ kind: 'server-unreachable', at: clock.wall, ms: 10_000 }]);
});

test('what nobody takes is kept up to a limit', async () => {
  await seconds(4_000);
  for (let each = 0; each < 500; each++) recorder.changed(change('moved'));
  const { windows, events } = recorder.take()!;
  expect(windows).toHaveLength(360);
  expect(windows.at(-1)!.at).toBe(begun + 3_990_000);
  expect(events).toHaveLength(200);
});

test('a session that only began and ended by itself is not worth a report', async () => {
  expect(recorder.take()).toBeNull();
  close(null);
  await settle();
  expect(recorder.take()).toBeNull();
});

test('the end of a session is recorded with its reason', async () => {
  close(new TunnelError('workspace-stopped'));
  await settle();
  expect(eventsAfterOpening()).toEqual([{ kind: 'ended', at: begun, reason: 'workspace-stopped' }]);
});
