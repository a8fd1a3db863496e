import { expect, test } from 'vitest';
import { warningsOf } from './stop-warnings.ts';

const minute = 60_000;

test.each([
  [2 * 60, [15 * minute, 5 * minute]],
  [16, [15 * minute, 5 * minute]],
  [15, [5 * minute]],
  [5, []],
])('after %i minutes without activity, a stop is announced %j ms ahead', (minutes, expected) => {
  expect(warningsOf('idle', minutes * minute)).toEqual(expected);
});

test('a stop at a fixed time is always announced', () => {
  expect(warningsOf('max-run', minute)).toEqual([15 * minute, 5 * minute]);
  expect(warningsOf('idle', null)).toEqual([15 * minute, 5 * minute]);
});
