import type { DailySchedule } from '@cde/api/activity.ts';
import { describe, expect, test } from 'vitest';
import { makeYear } from '../bench/idle/days.ts';
import { type Broken, ours } from '../bench/idle/policies.ts';
import { run } from '../bench/idle.ts';

/** A small version of `npm run bench:idle`, which must be able to tell a right policy from a wrong one. */
const workspaces = 40;
const only = (broken: Broken = {}) => ({
  cde: {
    title: 'cde',
    make: (schedule: DailySchedule | null) => ours(schedule, broken),
    suffersOutages: true,
  },
});

describe('the idle benchmark', () => {
  test.each([
    11, 12, 13,
  ])('our policy stops nothing wrongly and reclaims nearly everything (seed %i)', (seed) => {
    const { cde } = run(seed, workspaces, only());
    expect(cde).toMatchObject({ wrongStops: 0 });
    expect(cde!.reclaimed).toBeGreaterThan(0.94);
  });

  test.each([
    'process-cpu',
    'command-output',
    'editor-input',
  ] as const)('a policy that ignores %s stops wrongly', (ignores) => {
    expect(run(11, workspaces, only({ ignores })).cde!.wrongStops).toBeGreaterThan(0);
  });

  test('a policy that takes silence for idleness stops wrongly', () => {
    expect(run(11, workspaces, only({ takesSilenceForIdleness: true })).cde!.wrongStops).toBeGreaterThan(0);
  });

  test('a daily stop that ignores activity stops workspaces in use', () => {
    const scheduled = Array.from({ length: workspaces }, (_, index) => makeYear(11, index).schedule);
    expect(scheduled.filter((schedule) => schedule !== null).length).toBeGreaterThan(1);
    expect(run(11, workspaces, only({ stopsOnTheHour: true })).cde!.wrongStops).toBeGreaterThan(0);
  });

  test('the same seed gives the same result', () => {
    expect(run(7, 5)).toEqual(run(7, 5));
  });
});
