import { expect, test } from 'vitest';
import { makeContention } from './contention.ts';

function start() {
  let ms = 0;
  const contention = makeContention({
    now: () => ms,
    wallClock: () => new Date(Date.UTC(2026, 0, 1) + ms),
    findWriter: (sysctl, value) => `tuned sets ${sysctl} to ${value}`,
  });
  return {
    contention,
    wait: (by: number) => {
      ms += by;
    },
    repair: () => contention.repaired({ sysctl: 'vm.swappiness', from: '30', to: '1' }),
  };
}

test('repairs that follow each other closely are one drift, and a later one is another', () => {
  const { contention, wait, repair } = start();
  expect(contention.drift('vm.swappiness')).toBeUndefined();
  repair();
  const first = contention.drift('vm.swappiness');
  expect(first).toEqual({
    at: '2026-01-01T00:00:00.000Z',
    sysctl: 'vm.swappiness',
    from: '30',
    to: '1',
    by: 'tuned sets vm.swappiness to 30',
  });
  wait(2_000);
  repair();
  contention.retain(new Set(['vm.swappiness']));
  expect(contention.drift('vm.swappiness')).toEqual(first);
  wait(61_000);
  repair();
  expect(contention.drift('vm.swappiness')!.at).toBe('2026-01-01T00:01:03.000Z');
  expect(contention.describe('vm.swappiness')).toBeNull();
});

test('a value that is changed after each repair is contested: repairs back off, and it ends when the value stays', () => {
  const { contention, wait, repair } = start();
  for (let round = 0; round < 6; round++) {
    expect(contention.mayRepair('vm.swappiness')).toBe(true);
    repair();
    wait(2_000);
  }
  const message = contention.describe('vm.swappiness');
  expect(message).toMatch(
    /^Something sets vm\.swappiness to 30 whenever noded sets it to 1: tuned sets vm\.swappiness to 30\./,
  );
  const pauses: number[] = [];
  for (let round = 0; round < 8; round++) {
    let waited = 0;
    while (!contention.mayRepair('vm.swappiness')) {
      wait(1_000);
      waited += 1_000;
    }
    pauses.push(waited);
    repair();
  }
  expect(pauses).toEqual([8_000, 20_000, 40_000, 80_000, 160_000, 300_000, 300_000, 300_000]);
  expect(contention.drift('vm.swappiness')!.at).toBe('2026-01-01T00:00:00.000Z');
  // It stays the same, so that the node is not written each time.
  expect(contention.describe('vm.swappiness')).toBe(message);
  wait(359_000);
  expect(contention.describe('vm.swappiness')).toBe(message);
  wait(1_000);
  expect(contention.describe('vm.swappiness')).toBeNull();
  expect(contention.mayRepair('vm.swappiness')).toBe(true);
});

test('a sysctl that no profile names is forgotten', () => {
  const { contention, repair } = start();
  repair();
  contention.retain(new Set());
  expect(contention.drift('vm.swappiness')).toBeUndefined();
});

test('what an earlier process reported is remembered, and the next drift is a new one', () => {
  const { contention, repair } = start();
  const earlier = { at: '2025-12-31T00:00:00.000Z', sysctl: 'vm.swappiness', from: '9', to: '1' };
  contention.recall([earlier]);
  expect(contention.drift('vm.swappiness')).toEqual(earlier);
  repair();
  expect(contention.drift('vm.swappiness')!.from).toBe('30');
});
