import type { SessionStretch } from '@cde/api/sessions.ts';
import { expect, test } from 'vitest';
import { joinStretches, lossPercent, pathBands, tableRows } from './series.ts';

const start = Date.UTC(2026, 2, 1, 10);
const stretch = (second: number, p95: number, path: SessionStretch['path'] = null): SessionStretch => ({
  ...{ at: new Date(start + second * 1000).toISOString(), ms: 10_000, slowMs: 0, path, region: null },
  ...{ toSatellite: null, satelliteToAgent: null, bytes: 0 },
  toAgent: { p50: p95 / 2, p95, max: p95, count: 9, unanswered: 1 },
  host: { loopDelayMs: 0, cpuWaitPercent: null, throttledPercent: null, memoryPercent: null },
});
const relay = { kind: 'relay', via: 'tokyo' } as const;
const direct = { kind: 'direct-udp', via: '' } as const;

test('sessions at the same time become one line, the slowest, with a gap where nothing was recorded', () => {
  const points = joinStretches(
    [
      [stretch(0, 20), stretch(10, 20), stretch(100, 30)],
      [stretch(11, 400), stretch(21, 20)],
    ],
    '10s',
  );
  expect(points.map((point) => point.stretch?.toAgent?.p95 ?? null)).toEqual([20, 400, 20, null, 30]);
  const times = points.map(({ at }) => at);
  expect([...times].sort((one, other) => one - other)).toEqual(times);
});

test('a band has the times with one path, and ends at a gap', () => {
  const points = joinStretches(
    [[stretch(0, 1, relay), stretch(10, 1, relay), stretch(20, 1, direct), stretch(100, 1, direct)]],
    '10s',
  );
  expect(
    pathBands(points, '10s').map(({ from, to, label }) => [
      (from - start) / 1000,
      (to - start) / 1000,
      label,
    ]),
  ).toEqual([
    [0, 20, 'relay tokyo'],
    [20, 30, 'direct-udp'],
    [100, 110, 'direct-udp'],
  ]);
});

test('the table has at most sixty rows with the highest values, the newest first', () => {
  const points = joinStretches(
    [Array.from({ length: 360 }, (_, index) => stretch(index * 10, index + 1))],
    '10s',
  );
  const rows = tableRows(points, { from: start, to: start + 3_600_000 });
  expect(rows).toHaveLength(60);
  expect(rows[0]).toMatchObject({ p95: 360, p50: 180, unanswered: 6 });
  expect(tableRows(points.slice(0, 5), { from: start, to: start + 3_600_000 })).toHaveLength(5);
});

test('the loss is the part of all probes', () => {
  expect(lossPercent(stretch(0, 20))).toBe(10);
  expect(lossPercent({ ...stretch(0, 20), toAgent: null })).toBeNull();
});
