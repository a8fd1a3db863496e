import { expect, test } from 'vitest';
import { duration, relative } from './times.ts';

test.each([
  [400, '0.4 s'],
  [12_000, '12 s'],
  [200_000, '3 min 20 s'],
  [240_000, '4 min'],
  [3_599_600, '1 h'],
  [7_500_000, '2 h 5 min'],
  [4 * 86_400_000, '4 days'],
])('%i ms are %s', (ms, text) => {
  expect(duration(ms)).toBe(text);
});

test('moments are seen from now', () => {
  const now = Date.parse('2026-01-01T12:00:00.000Z');
  expect(relative(null, now)).toBe('never');
  expect(relative('2026-01-01T11:55:00.000Z', now)).toBe('5 min ago');
  expect(relative('2026-01-04T12:00:00.000Z', now)).toBe('in 3 days');
});
