import { type Signal, signals } from '@cde/api/activity.ts';
import { describe, expect, test } from 'vitest';
import { decide, type IdlePolicy, type Observations } from './policy.ts';
import { makeAfterHoursCalendar } from './schedule.ts';

const minute = 60_000;
const start = Date.UTC(2026, 0, 5, 9);
const at = (minutes: number) => start + minutes * minute;
const policy: IdlePolicy = { stopAfterIdleMs: 30 * minute, maxRunMs: null, neverStop: null, schedule: null };
/** A workspace that started at minute 0 and whose agent has reported until `now`. */
const observed = (now: number, rest: Partial<Observations> = {}): Observations => ({
  startedAt: start,
  latest: {},
  leases: [],
  reportedUntil: at(now),
  ...rest,
});

describe('idleness', () => {
  test('without activity a workspace stops after the period, counted from its start', () => {
    expect(decide(policy, observed(29), at(29))).toEqual({
      kind: 'awake',
      because: { kind: 'start', at: start },
      stopsAt: at(30),
      policy: 'idle',
    });
    expect(decide(policy, observed(30), at(30))).toEqual({
      kind: 'stop',
      policy: 'idle',
      because: { kind: 'start', at: start },
    });
  });

  test.each(signals)('%s alone keeps it awake, and its absence lets it stop', (signal: Signal) => {
    const latest = { [signal]: { at: at(20), by: 'ada' } };
    expect(decide(policy, observed(49, { latest }), at(49))).toMatchObject({
      kind: 'awake',
      because: { signal, by: 'ada' },
      stopsAt: at(50),
    });
    expect(decide(policy, observed(50, { latest }), at(50))).toMatchObject({ kind: 'stop' });
  });

  test('the latest signal is the reason', () => {
    const latest = { 'process-cpu': { at: at(10) }, 'terminal-input': { at: at(12) }, sync: { at: at(11) } };
    expect(decide(policy, observed(13, { latest }), at(13))).toMatchObject({
      because: { kind: 'signal', signal: 'terminal-input', at: at(12) },
    });
  });

  test('a lease keeps it awake until it expires, and idleness begins then', () => {
    const leases = [{ id: 'l1', expiresAt: at(180), by: 'ada' }];
    expect(decide(policy, observed(179, { leases }), at(179))).toMatchObject({
      kind: 'awake',
      because: { kind: 'lease', id: 'l1', by: 'ada' },
      stopsAt: at(210),
    });
    expect(decide(policy, observed(210, { leases }), at(210))).toMatchObject({ kind: 'stop' });
  });

  test('never-stop holds until it expires', () => {
    const never = { ...policy, neverStop: { until: at(1_000), by: 'grace', reason: 'demo' } };
    expect(decide(never, observed(999), at(999))).toMatchObject({
      kind: 'awake',
      because: { kind: 'never-stop', by: 'grace', reason: 'demo' },
    });
    expect(decide(never, observed(1_030), at(1_030))).toMatchObject({ kind: 'stop' });
  });

  test('without a period nothing stops it', () => {
    const none = { ...policy, stopAfterIdleMs: null };
    expect(decide(none, observed(100_000), at(100_000))).toMatchObject({ kind: 'awake', stopsAt: null });
  });
});

describe('missing reports', () => {
  test('are not idleness: nothing stops until the agent has reported everything', () => {
    const silent = observed(10);
    expect(decide(policy, silent, at(60))).toEqual({ kind: 'needs-report', reportedUntil: at(10) });
    expect(decide(policy, { ...silent, reportedUntil: at(60) }, at(60))).toMatchObject({ kind: 'stop' });
  });

  test('a recent report is not enough: a key may have been pressed since', () => {
    const now = at(60);
    expect(decide(policy, observed(0, { reportedUntil: now - 1 }), now)).toMatchObject({
      kind: 'needs-report',
    });
  });

  test('what the agent reports afterwards counts at the time when it happened', () => {
    const latest = { 'process-cpu': { at: at(55) } };
    expect(decide(policy, observed(60, { latest }), at(60))).toMatchObject({
      kind: 'awake',
      stopsAt: at(85),
    });
  });
});

describe('the maximum run time', () => {
  const bounded = { ...policy, maxRunMs: 120 * minute };
  test('stops a busy workspace, with or without reports', () => {
    const latest = { 'terminal-input': { at: at(119) } };
    expect(decide(bounded, observed(119, { latest }), at(119))).toMatchObject({
      kind: 'awake',
      stopsAt: at(120),
      policy: 'max-run',
    });
    expect(decide(bounded, observed(0, { latest }), at(120))).toMatchObject({
      kind: 'stop',
      policy: 'max-run',
    });
  });

  test('the earlier of the two limits is announced', () => {
    expect(decide(bounded, observed(10), at(10))).toMatchObject({ stopsAt: at(30), policy: 'idle' });
  });
});

describe('the daily stop', () => {
  // The workspace starts at 09:00; its day ends at 19:00, and the next one begins at 08:30.
  const stop = 600;
  const nextDay = 24 * 60 - 30;
  const schedule = makeAfterHoursCalendar(
    { start: '08:30', stop: '19:00', days: ['mon', 'tue', 'wed', 'thu', 'fri'], timeZone: 'UTC' },
    new Set(),
  );
  const daily: IdlePolicy = { ...policy, stopAfterIdleMs: 8 * 60 * minute, schedule };
  const active = (minutes: number) => ({ latest: { 'terminal-input': { at: at(minutes) } } });

  test('stops a workspace that nobody has used for half an hour', () => {
    expect(decide(daily, observed(300, active(200)), at(300))).toMatchObject({
      kind: 'awake',
      stopsAt: at(stop),
      policy: 'schedule',
    });
    expect(decide(daily, observed(stop, active(200)), at(stop))).toMatchObject({
      kind: 'stop',
      policy: 'schedule',
    });
  });

  test('does not cut off those who are still there', () => {
    expect(decide(daily, observed(stop, active(599)), at(stop))).toMatchObject({
      kind: 'awake',
      stopsAt: at(629),
      policy: 'schedule',
    });
    expect(decide(daily, observed(700, active(690)), at(700))).toMatchObject({ stopsAt: at(720) });
    expect(decide(daily, observed(720, active(690)), at(720))).toMatchObject({ kind: 'stop' });
  });

  test('waits for leases, also for one that lasts until the next evening', () => {
    const until = (minutes: number) => ({ leases: [{ id: 'l1', expiresAt: at(minutes), by: 'ada' }] });
    expect(decide(daily, observed(stop, until(800)), at(stop))).toMatchObject({ stopsAt: at(830) });
    expect(decide(daily, observed(stop, until(nextDay + 60)), at(stop))).toMatchObject({
      stopsAt: at(nextDay + 60 + 480),
      policy: 'idle',
    });
  });

  test('ends with the next start: idle periods are as usual again', () => {
    expect(decide(daily, observed(nextDay, active(nextDay - 10)), at(nextDay))).toMatchObject({
      kind: 'awake',
      stopsAt: at(nextDay - 10 + 480),
      policy: 'idle',
    });
  });

  test('a shorter idle period stays, and stopping never for idleness does not prevent it', () => {
    expect(decide({ ...policy, schedule }, observed(stop, active(590)), at(stop))).toMatchObject({
      stopsAt: at(620),
      policy: 'idle',
    });
    expect(decide({ ...daily, stopAfterIdleMs: null }, observed(300, active(200)), at(300))).toMatchObject({
      stopsAt: at(stop),
      policy: 'schedule',
    });
  });

  test('never stops on missing data', () => {
    expect(decide(daily, observed(stop - 1, active(200)), at(stop))).toMatchObject({ kind: 'needs-report' });
  });

  test('comes after a maximum run time that ends earlier', () => {
    expect(decide({ ...daily, maxRunMs: 120 * minute }, observed(10), at(10))).toMatchObject({
      stopsAt: at(120),
      policy: 'max-run',
    });
  });
});
