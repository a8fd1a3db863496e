import { expect, test } from 'vitest';
import { makeWindow } from './window.ts';

test('the average over the last minute decides', () => {
  const { isBusy } = makeWindow(10);
  expect(isBusy(5000, 0)).toBe(false);
  // Idle.
  expect(isBusy(5050, 30_000)).toBe(false);
  expect(isBusy(5100, 60_000)).toBe(false);
  // A burst that makes up for the average of a minute, and then nothing.
  expect(isBusy(5800, 90_000)).toBe(true);
  expect(isBusy(5800, 120_000)).toBe(true);
  expect(isBusy(5800, 150_000)).toBe(false);
  // Steady work just above and just below.
  expect(isBusy(6105, 180_000)).toBe(false);
  expect(isBusy(6410, 210_000)).toBe(true);
  expect(isBusy(6700, 240_000)).toBe(false);
});

test('work is seen before a whole minute has passed', () => {
  const { isBusy } = makeWindow(10);
  isBusy(0, 0);
  expect(isBusy(500, 10_000)).toBe(false);
  expect(isBusy(700, 15_000)).toBe(true);
});

test('rare reports are averaged over the time between them', () => {
  const { isBusy } = makeWindow(10);
  isBusy(0, 0);
  expect(isBusy(1000, 300_000)).toBe(false);
  expect(isBusy(4000, 600_000)).toBe(true);
});
