import { randomUUID } from 'node:crypto';
import type { LegSample } from '@cde/api/diagnosis.ts';
import { asc, eq } from 'drizzle-orm';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { recordings, sessionHours, sessionMinutes } from '../database/diagnosis-schema.ts';
import { makeTestServer, type TestServer, type TestUser } from '../testing.ts';
import { mergeLegs } from './merge.ts';
import { makePartitions, type Partition } from './partitions.ts';
import { boundRecordings } from './retention.ts';
import { rollUp } from './rollup.ts';
import { addWorkspace, leg, postBatch, tokyo, v1, windowsAgo } from './testing.ts';

let server: TestServer;
let ada: TestUser;
let web: string;

beforeAll(async () => {
  server = await makeTestServer();
  const admin = await server.addUser('adm', 'owner');
  ada = await server.addUser('ada');
  await server.request(admin, 'POST', `${v1}/templates`, {
    files: { 'template.yaml': 'name: plain\nprovider: local\n' },
  });
  ({ id: web } = await addWorkspace(server, ada, 'web'));
});
afterAll(() => server.close());

const at = (time: string) => {
  server.clock.at = new Date(time);
};
const regionOf = (via: string) => (via === tokyo.via ? 'asia' : null);
async function rollUpAll(): Promise<void> {
  await makePartitions(server.database.db).ensureRolledUp();
  while (await rollUp({ database: server.database, now: server.clock.at, regionOf }));
}
const rowsOf = (table: typeof sessionMinutes | typeof sessionHours, id: string) =>
  server.database.db.select().from(table).where(eq(table.recordingId, id)).orderBy(asc(table.at));

test('windows become minutes and hours, which can be made again and go on', async () => {
  const id = randomUUID();
  at('2026-03-01T09:59:30Z');
  await postBatch(server, ada, web, { id, windows: windowsAgo(150_000) });
  at('2026-03-01T10:10:00Z');
  await rollUpAll();
  const minutes = await rowsOf(sessionMinutes, id);
  expect(minutes.map((row) => [row.at.toISOString().slice(11, 16), row.ms, row.toAgent![3]])).toEqual([
    ['09:57', 60_000, 60],
    ['09:58', 60_000, 60],
    ['09:59', 30_000, 30],
  ]);
  expect(minutes[0]).toMatchObject({ pathKind: 'relay', pathVia: tokyo.via, region: 'asia', slowMs: 0 });
  expect((await rowsOf(sessionHours, id)).map((row) => [row.ms, row.toAgent![3], row.bytes])).toEqual([
    [150_000, 150, 15_000],
  ]);

  // The rest of the last minute, and the next hour.
  at('2026-03-01T10:01:00Z');
  await postBatch(server, ada, web, { id, batch: 2, windows: windowsAgo(90_000, 0, { toAgent: leg(400) }) });
  at('2026-03-01T10:20:00Z');
  await rollUpAll();
  expect((await rowsOf(sessionMinutes, id)).map(({ ms, slowMs }) => [ms, slowMs])).toEqual([
    [60_000, 0],
    [60_000, 0],
    [60_000, 30_000],
    [60_000, 60_000],
  ]);
  const hours = await rowsOf(sessionHours, id);
  expect(hours.map(({ ms, slowMs }) => [ms, slowMs])).toEqual([
    [180_000, 30_000],
    [60_000, 60_000],
  ]);

  // As if it had been killed after it wrote them.
  await server.database.db
    .update(recordings)
    .set({ rolledUntil: null, rollUpAt: server.clock.at })
    .where(eq(recordings.id, id));
  await rollUpAll();
  expect(await rowsOf(sessionHours, id)).toEqual(hours);
});

test('two replicas do not get in the way of each other, and more than fits in one transaction is done', async () => {
  at('2026-03-02T12:00:00Z');
  const ids = Array.from({ length: 15 }, () => randomUUID());
  for (const id of ids)
    await postBatch(server, ada, web, { id, startedAgoMs: 3_600_000, windows: windowsAgo(3_600_000) });
  at('2026-03-02T12:10:00Z');
  await Promise.all([rollUpAll(), rollUpAll()]);
  for (const id of ids) expect(await rowsOf(sessionMinutes, id)).toHaveLength(60);
  expect(await rollUp({ database: server.database, now: server.clock.at, regionOf })).toBe(false);
});

const sample = (p50: number, p95: number, max: number, count = 10): LegSample => ({
  ...{ p50, p95, max, count, unanswered: 0 },
});

test('merged round trips lie where those of the windows do', () => {
  expect(mergeLegs([])).toBeNull();
  expect(mergeLegs([sample(20, 30, 50)])).toEqual(sample(20, 30, 50));
  expect(mergeLegs(Array.from({ length: 6 }, () => sample(20, 30, 50)))).toEqual(sample(20, 30, 50, 60));
  // One slow window in a hundred does not become the p95, and keeps its maximum.
  const rare = mergeLegs([
    ...Array.from({ length: 99 }, () => sample(20, 30, 50)),
    sample(900, 1_000, 1_200),
  ])!;
  expect(rare).toMatchObject({ p50: 20, max: 1_200, count: 1_000 });
  expect(rare.p95).toBeGreaterThanOrEqual(30);
  expect(rare.p95).toBeLessThan(50);
  // One in four does.
  const often = mergeLegs([
    ...Array.from({ length: 3 }, () => sample(20, 30, 50)),
    sample(900, 1_000, 1_200),
  ])!;
  expect(often.p50).toBe(20);
  expect(often.p95).toBeGreaterThan(900);
  // A window without traffic of its own counts by its round trips.
  expect(mergeLegs([sample(20, 30, 50, 1), sample(80, 90, 95, 99)])!.p50).toBe(80);
});

test('merged round trips are close to the percentiles of all of them', () => {
  let seed = 7;
  const random = () => {
    seed = (seed * 16_807) % 2_147_483_647;
    return seed / 2_147_483_647;
  };
  const percentile = (values: number[], share: number) =>
    [...values].sort((one, other) => one - other)[Math.ceil(values.length * share) - 1]!;
  const all: number[] = [];
  const windows = Array.from({ length: 360 }, (_, index) => {
    const base = index % 9 === 0 ? 80 : 20;
    const trips = Array.from({ length: 10 }, () => base * (1 - Math.log(1 - random()) / 4));
    all.push(...trips);
    return sample(percentile(trips, 0.5), percentile(trips, 0.95), Math.max(...trips));
  });
  const merged = mergeLegs(windows)!;
  expect(merged.max).toBe(Math.max(...all));
  expect(Math.abs(merged.p50 / percentile(all, 0.5) - 1)).toBeLessThan(0.15);
  expect(Math.abs(merged.p95 / percentile(all, 0.95) - 1)).toBeLessThan(0.25);
});

test('samples that take too much space are dropped, the finest of the past first', async () => {
  const day = 86_400_000;
  const now = new Date('2026-03-10T12:00:00Z');
  const partition = (table: Partition['table'], name: string, endsIn: number): Partition => ({
    ...{ table, name, bytes: 1024 ** 3, endsAt: Math.ceil(now.getTime() / day) * day + endsIn * day },
  });
  const all = [
    partition('session_hours', 'hours', -5),
    partition('session_minutes', 'minutes', -5),
    partition('session_windows', 'yesterday', -1),
    partition('session_windows', 'the day before', -2),
    partition('session_windows', 'today', 0),
  ];
  const bound = (recordingGib: number) =>
    boundRecordings({ list: async () => all, drop: async () => {} }, now, { recordingGib });
  expect(await bound(5)).toMatchObject({ dropped: [], isFull: false });
  expect(await bound(4)).toMatchObject({ dropped: ['the day before'], isFull: false });
  expect((await bound(2)).dropped).toEqual(['the day before', 'yesterday', 'minutes']);
  expect(await bound(0.5)).toMatchObject({ isFull: true, bytes: 1024 ** 3 });
});
