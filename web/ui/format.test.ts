import { expect, test } from 'vitest';
import { bytes, duration } from './format.ts';

test('durations', () => {
  expect([0, 1240, 9999, 48_260, 185_000, 7_440_000, -5].map(duration)).toEqual([
    '0.00 s',
    '1.24 s',
    '10.00 s',
    '48.3 s',
    '3 min 05 s',
    '2 h 04 min',
    '0.00 s',
  ]);
});

test('sizes', () => {
  expect([0, 1023, 1536, 312 * 2 ** 20, 20 * 2 ** 30].map(bytes)).toEqual([
    '0 B',
    '1023 B',
    '1.5 KiB',
    '312 MiB',
    '20.0 GiB',
  ]);
});
