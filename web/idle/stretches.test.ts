import type { ActivityEvent } from '@cde/api/activity.ts';
import { expect, test } from 'vitest';
import { chartRows } from './stretches.ts';

const hour = 3_600_000;
const at = (hours: number) => new Date(hours * hour).toISOString();
const event = (hours: number, more: Partial<ActivityEvent>): ActivityEvent => ({
  id: '01990000-0000-7000-8000-000000000001',
  at: at(hours),
  until: null,
  kind: 'signal',
  signal: null,
  cause: null,
  by: null,
  text: '',
  ...more,
});
const rowsOf = (events: ActivityEvent[], runsNow: boolean) =>
  Object.fromEntries(
    chartRows(events, { from: 0, to: 10 * hour, runsNow, titleOf: () => '' }).map(({ key, stretches }) => [
      key,
      stretches.map(({ from, to }) => [from, to]),
    ]),
  );

test('runs are between starts and stops; one that lasts reaches the end', () => {
  const stops = [event(8, { kind: 'started' }), event(6, { kind: 'stopped' }), event(2, { kind: 'started' })];
  expect(rowsOf(stops, true)).toEqual({
    running: [
      [0.2, 0.6],
      [0.8, 1],
    ],
  });
  expect(rowsOf([event(3, { kind: 'stopped' })], false)).toEqual({ running: [[0, 0.3]] });
  expect(rowsOf([], true)).toEqual({ running: [[0, 1]] });
  expect(rowsOf([], false)).toEqual({ running: [] });
});

test('stretches are clipped to the chart, and signals without any have no row', () => {
  const seen = [
    event(-1, { signal: 'build', until: at(1) }),
    event(9, { signal: 'build', until: at(12) }),
    event(-3, { signal: 'sync', until: at(-2) }),
    event(5, { signal: 'terminal-input' }),
  ];
  expect(rowsOf(seen, false)).toEqual({
    running: [],
    'terminal-input': [[0.5, 0.5]],
    build: [
      [0, 0.1],
      [0.9, 1],
    ],
  });
});
