import { expect, test } from 'vitest';
import type { IdleState } from './activity.ts';
import {
  causeText,
  clockText,
  daysText,
  eventName,
  pastCauseText,
  shortStopText,
  signalText,
  spanText,
  stopText,
  stopValue,
  whenText,
} from './idle-text.ts';

const now = Date.parse('2026-03-04T12:00:00.000Z');
const from = (minutes: number) => new Date(now + minutes * 60_000).toISOString();
const state = (more: Partial<IdleState> = {}): IdleState => ({
  awakeBecause: { kind: 'signal', signal: 'terminal-input', at: from(-2), by: 'ada' },
  stopsAt: from(25),
  cause: 'idle',
  waitsForReport: false,
  held: false,
  ...more,
});

test('a cause says what, by whom and when', () => {
  expect(causeText(state().awakeBecause, now)).toBe('terminal input by ada (2 min ago)');
  expect(signalText('process-cpu', 'make')).toBe('CPU use of make');
  expect(causeText({ kind: 'lease', id: 'x', at: from(150), by: 'workspace' }, now)).toBe(
    'keep-awake by a program in it (expires in 2 h 30 min)',
  );
  expect(causeText({ kind: 'start', at: from(0) }, now)).toBe('its start (just now)');
});

test('a past cause is worded as of the stop, because it is read much later', () => {
  expect(pastCauseText(state().awakeBecause, now)).toBe('terminal input by ada, 2 min before');
  expect(pastCauseText({ kind: 'lease', id: 'x', at: from(-60), by: 'ada' }, now)).toBe(
    'keep-awake by ada, which expired 1 h before',
  );
});

test('a stop says when, by what and what postpones it', () => {
  expect(stopText(state(), now)).toMatch(
    /^It stops at .+ \(in 25 min\) by the idle policy unless there is more activity\.$/,
  );
  expect(stopText(state({ cause: 'max-run' }), now)).toMatch(/maximum run time, whatever runs in it\.$/);
  expect(stopText(state({ stopsAt: null, cause: null }), now)).toBe('No policy stops it.');
  expect(stopText(state({ stopsAt: from(-1) }), now)).toMatch(/^It stops now by/);
  expect(stopText(state({ waitsForReport: true }), now)).toContain('agent has not reported');
  expect(stopText(state({ held: true }), now)).toContain('once an admin allows it');
  // After a label, without its word.
  expect(stopValue(state(), now)).toMatch(/^at .+ by the idle policy unless there is more activity$/);
  expect(stopValue(state({ stopsAt: null, cause: null }), now)).toBe('never: no policy stops it');
  expect(stopValue(state({ held: true }), now)).toMatch(/^due, and waits/);
});

test.each([
  [40, '40 s'],
  [89, '1 min'],
  [11 * 60 + 40, '12 min'],
  [59 * 60 + 40, '1 h'],
  [90 * 60, '1 h 30 min'],
  [47 * 3600 + 59 * 60 + 50, '2 days'],
  [7 * 86_400 - 10, '7 days'],
  [60 * 3600, '2 days 12 h'],
  [30 * 86_400 + 3600, '30 days'],
])('%d s are %s: rounded to the smallest unit', (seconds, text) => {
  expect(spanText(seconds * 1000)).toBe(text);
  expect(whenText(from(seconds / 60), now)).toBe(`in ${text}`);
});

test('a moment on another day has the day, and in another year the year', () => {
  expect(clockText(from(1), now)).toMatch(/^\d\d:\d\d$/);
  expect(clockText(from(60 * 24 * 3), now)).toMatch(/^\w{3} \d \w{3} \d\d:\d\d$/);
  expect(clockText('2027-03-04T12:00:00.000Z', now)).toMatch(/^Thu 4 Mar 2027 \d\d:\d\d$/);
});

test('events of leases are called keep-awake', () => {
  expect(eventName({ kind: 'lease-granted', signal: null })).toBe('keep-awake');
  expect(eventName({ kind: 'signal', signal: 'process-cpu' })).toBe('process-cpu');
  expect(eventName({ kind: 'stop-vetoed', signal: 'process-cpu' })).toBe('stop-vetoed');
});

test('the short form fits a column', () => {
  expect(shortStopText(state(), now)).toBe('in 25 min');
  expect(shortStopText(state({ stopsAt: from(60 * 24 * 4) }), now)).toBe('in 4 days');
  expect(shortStopText(state({ stopsAt: null }), now)).toBe('never');
  expect(shortStopText(state({ waitsForReport: true }), now)).toBe('waits for its agent');
  expect(shortStopText(state({ held: true }), now)).toBe('held back');
  const neverStop = {
    kind: 'never-stop',
    at: '2026-12-12T12:00:00.000Z',
    by: 'ada',
    reason: 'demo',
  } as const;
  expect(shortStopText(state({ awakeBecause: neverStop, stopsAt: null }), now)).toBe('never until 12 Dec');
  // The maximum run time comes first.
  expect(shortStopText(state({ awakeBecause: neverStop, cause: 'max-run' }), now)).toBe('in 25 min');
});

test('days are ranges from three in a row on', () => {
  expect(daysText(['fri', 'mon', 'tue', 'wed', 'thu'])).toBe('mon-fri');
  expect(daysText(['mon', 'wed', 'sat', 'sun'])).toBe('mon, wed, sat, sun');
});
