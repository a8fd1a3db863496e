import type { IdleReply } from '@cde/api/activity.ts';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { makeActivity } from './activity.ts';
import { makeWarnings } from './warnings.ts';

const minute = 60_000;
const shown: string[] = [];
let reports = 0;
beforeEach(() => {
  vi.useFakeTimers({ now: Date.parse('2026-03-02T12:00:00Z') });
  shown.length = 0;
  reports = 0;
});
afterEach(() => {
  vi.useRealTimers();
});

function start({ command = '~/.local/bin/cde' as string | undefined } = {}) {
  const activity = makeActivity();
  const warnings = makeWarnings({
    workspace: () => 'ada/box',
    openTerminals: { show: (line) => shown.push(line), withdraw: () => shown.push('withdrawn') },
    activity,
    command,
    reportSoon: () => {
      reports += 1;
    },
  });
  const say = (stopsInMs: number | null, more: Partial<IdleReply> = {}) =>
    warnings.update({
      stopsInMs,
      cause: 'idle',
      warnBeforeMs: [15 * minute, 5 * minute],
      extendable: true,
      shutdown: null,
      ...more,
    });
  const lines = () => shown.filter((line) => line !== 'withdrawn');
  return { activity, warnings, say, lines };
}

test('15 and 5 minutes before, once each, with the time, the reason and what helps', () => {
  const { say, lines } = start();
  say(30 * minute);
  vi.advanceTimersByTime(14 * minute);
  expect(lines()).toEqual([]);
  vi.advanceTimersByTime(1 * minute);
  expect(lines()).toEqual([
    'cde: ada/box stops in 15 minutes (12:30 UTC), because nothing has been active in it. To keep it awake, press a key here, or run: ~/.local/bin/cde keep-awake --for 3h',
  ]);
  // Each regular report confirms the same stop.
  say(14 * minute);
  say(14 * minute);
  vi.advanceTimersByTime(9 * minute);
  expect(lines()).toHaveLength(2);
  expect(lines()[1]).toContain('stops in 5 minutes (12:29 UTC)');
  vi.advanceTimersByTime(60 * minute);
  expect(lines()).toHaveLength(2);
});

test('none if the stop has moved, and again before the new one', () => {
  const { say, lines } = start();
  say(20 * minute);
  vi.advanceTimersByTime(4 * minute);
  say(60 * minute);
  vi.advanceTimersByTime(40 * minute);
  expect(lines()).toEqual([]);
  vi.advanceTimersByTime(5 * minute);
  expect(lines()).toHaveLength(1);
  say(60 * minute);
  vi.advanceTimersByTime(45 * minute);
  expect(lines()).toHaveLength(2);
  expect(shown.filter((line) => line === 'withdrawn').length).toBeGreaterThan(0);
});

test('no warning if there was activity since the last report, which is repeated at once', () => {
  const { activity, say, lines } = start();
  say(20 * minute);
  vi.advanceTimersByTime(4 * minute);
  activity.record('terminal-input', 'ada');
  vi.advanceTimersByTime(1 * minute);
  expect(lines()).toEqual([]);
  expect(reports).toBe(1);
  // The server says that this was not enough, for example because it counts only persons for this stop.
  say(15 * minute - 1000);
  expect(lines()).toHaveLength(1);
});

test('a threshold that is longer than the whole idle time never warns', () => {
  const { say, lines } = start();
  say(10 * minute);
  say(10 * minute);
  expect(lines()).toEqual([]);
  vi.advanceTimersByTime(5 * minute);
  expect(lines()).toHaveLength(1);
});

test('activity does not help against a stop that it cannot postpone', () => {
  const { activity, say, lines } = start();
  say(16 * minute, { cause: 'max-run', extendable: false });
  activity.record('terminal-input', 'ada');
  vi.advanceTimersByTime(1 * minute);
  expect(lines()).toEqual([
    'cde: ada/box stops in 15 minutes (12:16 UTC), because it has reached its maximum run time. Save your work.',
  ]);
});

test('a machine that slept through the stop does not check again and again', () => {
  let asleepMs = 0;
  const warnings = makeWarnings({
    workspace: () => 'ada/box',
    openTerminals: { show: (line) => shown.push(line), withdraw() {} },
    activity: makeActivity(),
    command: undefined,
    reportSoon() {},
    now: () => performance.now() + asleepMs,
  });
  warnings.update({
    stopsInMs: 16 * minute,
    cause: 'idle',
    warnBeforeMs: [15 * minute, 5 * minute],
    extendable: true,
    shutdown: null,
  });
  asleepMs = 60 * minute;
  vi.advanceTimersByTime(1 * minute);
  expect([shown, vi.getTimerCount()]).toEqual([[], 0]);
});

test('no warning once nothing stops the workspace', () => {
  const { say, lines } = start();
  say(16 * minute);
  say(null);
  vi.advanceTimersByTime(60 * minute);
  expect(lines()).toEqual([]);
});
