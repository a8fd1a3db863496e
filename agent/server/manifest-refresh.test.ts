import type { Clock } from '@cde/tunnel/clock.ts';
import { expect, test } from 'vitest';
import { makeManifestRefresh } from './manifest-refresh.ts';

function start({ random = 0.5 } = {}) {
  const slept: number[] = [];
  const stopping = new AbortController();
  let renewals = 0;
  let onSleep = () => {};
  const clock: Clock = {
    now: () => 0,
    random: () => random,
    async sleep(ms) {
      slept.push(ms);
      onSleep();
    },
  };
  const refresh = makeManifestRefresh({
    async renew() {
      renewals++;
      throw new Error('unreachable');
    },
    signal: stopping.signal,
    clock,
  });
  return {
    refresh,
    slept,
    stopping,
    renewals: () => renewals,
    onSleep(then: () => void) {
      onSleep = then;
    },
  };
}

test('renews three times, also if the server is unreachable, and again at the next loss', async () => {
  const { refresh, slept, renewals } = start();
  await refresh();
  expect([slept, renewals()]).toEqual([[2500, 7500, 7500], 3]);
  await refresh();
  expect(renewals()).toBe(6);
});

test('losses during a refresh share it', async () => {
  const { refresh, renewals } = start();
  await Promise.all([refresh(), refresh(), refresh()]);
  expect(renewals()).toBe(3);
});

test('does nothing more once the agent stops', async () => {
  const { refresh, stopping, renewals, onSleep } = start();
  onSleep(() => renewals() === 1 && stopping.abort());
  await refresh();
  expect(renewals()).toBe(1);
});
