import { expect, test } from 'vitest';
import type { IdleState } from './activity.ts';
import { causeText, daysText, pastCauseText, shortStopText, signalText, stopText } from './idle-text.ts';

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
    /^Stops at .+ \(in 25 min\) by the idle policy unless there is more/,
  );
  expect(stopText(state({ cause: 'max-run' }), now)).toMatch(/maximum run time, whatever runs in it\.$/);
  expect(stopText(state({ stopsAt: null, cause: null }), now)).toBe('Nothing stops it.');
  expect(stopText(state({ stopsAt: from(-1) }), now)).toMatch(/^Stops now by/);
  expect(stopText(state({ waitsForReport: true }), now)).toContain('agent has not reported');
  expect(stopText(state({ held: true }), now)).toContain('once an admin allows it');
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
