import type { DailySchedule } from '@cde/api/activity.ts';
import { describe, expect, test } from 'vitest';
import { makeYear } from '../bench/idle/days.ts';
import { type Broken, ours } from '../bench/idle/policies.ts';
import { simulate } from '../bench/idle/simulate.ts';
import { run } from '../bench/idle.ts';

/** A small version of `npm run bench:idle`, which must be able to tell a right policy from a wrong one. */
const workspaces = 40;
const correct = {
  cde: { title: 'cde', make: (schedule: DailySchedule | null) => ours(schedule), suffersOutages: true },
};

/** Whether the benchmark finds a wrong stop of a broken policy. It looks no further than the first workspace that has one. */
function stopsWrongly(broken: Broken): boolean {
  return Array.from({ length: workspaces }, (_, index) => index).some((index) => {
    const year = makeYear(11, index);
    return simulate(year, ours(year.schedule, broken)).wrongStops > 0;
  });
}

describe('the idle benchmark', () => {
  test.each([
    11, 12, 13,
  ])('our policy stops nothing wrongly and reclaims nearly everything (seed %i)', (seed) => {
    const { cde } = run(seed, workspaces, correct);
    expect(cde).toMatchObject({ wrongStops: 0 });
    expect(cde!.reclaimed).toBeGreaterThan(0.94);
  });

  test.each([
    'process-cpu',
    'command-output',
    'editor-input',
  ] as const)('a policy that ignores %s stops wrongly', (ignores) => {
    expect(stopsWrongly({ ignores })).toBe(true);
  });

  test('a policy that takes silence for idleness stops wrongly', () => {
    expect(stopsWrongly({ takesSilenceForIdleness: true })).toBe(true);
  });

  test('a daily stop that ignores activity stops workspaces in use', () => {
    expect(stopsWrongly({ stopsOnTheHour: true })).toBe(true);
  });

  test('the same seed gives the same result', () => {
    expect(run(7, 5)).toEqual(run(7, 5));
  });
});
