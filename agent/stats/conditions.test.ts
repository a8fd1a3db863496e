import { beforeEach, expect, test } from 'vitest';
import type { ServerClient } from '../server/client.ts';
import { reportConditions } from './conditions.ts';

const calm = { loopDelayMs: 2, cpuWaitPercent: 1, throttledPercent: 10, memoryPercent: 50 };
let host: typeof calm;
let at: number;
let sessions: boolean;
let kills: number;
let tick: () => void;
let reports: { batch: number; windows: { agoMs: number; outOfMemoryKills: number }[] }[];
let answer: () => Promise<void>;

const settle = () => new Promise((resolve) => setImmediate(resolve));
async function seconds(count: number): Promise<void> {
  for (let each = 0; each < count; each++) {
    at += 1000;
    tick();
    await settle();
  }
}

beforeEach(async () => {
  [at, sessions, kills, reports, host] = [0, true, 0, [], calm];
  answer = async () => {};
  await reportConditions({
    client: {
      async call(_endpoint: unknown, { body }: { body: (typeof reports)[number] }) {
        await answer();
        reports.push(body);
      },
    } as unknown as ServerClient,
    usage: {
      isGroup: true,
      cpuMs: async () => 0,
      diskBytes: async () => null,
      memory: async () => ({ used: 0, limit: null }),
      limitsHit: async () => ({ throttledMs: 0, outOfMemoryKills: kills }),
    },
    memoryLimit: null,
    process: 'p',
    hasSessions: () => sessions,
    now: () => at,
    every: (_ms, each) => {
      tick = each;
      return () => {};
    },
    host: { late() {}, sample: async () => host },
  });
});

test('windows of ten seconds are reported every thirty', async () => {
  await seconds(30);
  expect(reports).toEqual([
    {
      process: 'p',
      batch: 1,
      windows: [30_000, 20_000, 10_000].map((agoMs) => ({ agoMs, ms: 10_000, host, outOfMemoryKills: 0 })),
    },
  ]);
});

test('a window in which the workspace was too busy is reported at once, with those before it', async () => {
  await seconds(10);
  host = { ...calm, throttledPercent: 60 };
  await seconds(10);
  expect(reports.map(({ windows }) => windows.map(({ agoMs }) => agoMs))).toEqual([[20_000, 10_000]]);
});

test('a workspace without sessions reports nothing, unless it runs out of memory', async () => {
  sessions = false;
  await seconds(60);
  expect(reports).toEqual([]);
  kills = 2;
  await seconds(40);
  expect(reports.flatMap(({ windows }) => windows.map(({ outOfMemoryKills }) => outOfMemoryKills))).toEqual([
    2,
  ]);
});

test('what the server may not have stored is repeated under its number, then the rest follows', async () => {
  answer = () => Promise.reject(new Error('no answer'));
  await seconds(30);
  answer = async () => {};
  await seconds(60);
  expect(reports.map(({ batch, windows }) => [batch, windows.map(({ agoMs }) => agoMs)])).toEqual([
    [1, [60_000, 50_000, 40_000]],
    [2, [60_000, 50_000, 40_000, 30_000, 20_000, 10_000]],
  ]);
});

test('a server of an earlier release is not asked again', async () => {
  answer = () => Promise.reject(Object.assign(new Error('no such route'), { status: 404 }));
  await seconds(30);
  answer = async () => {};
  await seconds(60);
  expect(reports).toEqual([]);
});
