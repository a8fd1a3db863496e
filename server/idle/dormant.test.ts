import { expect, test } from 'vitest';
import { decideDormancy } from './dormant.ts';

const day = 24 * 3600_000;
const stopped = { dormantAfterDays: 30, personAt: 0, neverStopUntil: null, reportedUntil: null };

test('a stopped workspace is due so many days after the last sign of a person', () => {
  expect(decideDormancy(stopped, 30 * day - 1)).toEqual({ kind: 'in-use', dormantAt: 30 * day });
  expect(decideDormancy(stopped, 30 * day)).toEqual({ kind: 'due', personAt: 0 });
  expect(decideDormancy({ ...stopped, personAt: 5 * day }, 34 * day)).toMatchObject({ kind: 'in-use' });
});

test('a running one is due only once its agent has reported everything', () => {
  const running = { ...stopped, reportedUntil: 29 * day };
  expect(decideDormancy(running, 30 * day)).toEqual({ kind: 'needs-report', reportedUntil: 29 * day });
  expect(decideDormancy({ ...running, reportedUntil: 30 * day }, 30 * day)).toMatchObject({ kind: 'due' });
});

test('never-stop postpones it, and without a number of days it never happens', () => {
  const never = { ...stopped, neverStopUntil: 60 * day };
  expect(decideDormancy(never, 59 * day)).toEqual({ kind: 'in-use', dormantAt: 60 * day });
  expect(decideDormancy(never, 60 * day)).toMatchObject({ kind: 'due' });
  expect(decideDormancy({ ...stopped, dormantAfterDays: null }, 999 * day)).toEqual({
    kind: 'in-use',
    dormantAt: null,
  });
});
