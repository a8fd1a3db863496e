import { describe, expect, test } from 'vitest';
import { nearest, type SatelliteWay, wordsOf } from './ways.ts';

const own = (rttMs: number | null, agentRttMs: number | null) => ({ rttMs, agentRttMs });
const at = (name: string, rttMs: number | null, agentRttMs: number | null): SatelliteWay => ({
  name,
  url: `https://${name}`,
  code: '',
  rttMs,
  agentRttMs,
});

describe('a terminal goes', () => {
  test.each([
    [
      'over the satellite that is nearest in all',
      own(150, 2),
      [at('far', 5, 140), at('near', 5, 10)],
      'near',
    ],
    ['over the server where nothing else is', own(150, 2), [], null],
    ['over the server where the satellite is no better', own(20, 2), [at('a', 20, 3)], null],
    ['over the server for a gain that nobody notices', own(100, 20), [at('a', 100, 11)], null],
    ['elsewhere for ten milliseconds', own(100, 20), [at('a', 100, 10)], 'a'],
    ['elsewhere for a tenth of little', own(8, 2), [at('a', 7, 2)], 'a'],
    ['over the server for less than chance', own(1, 0.5), [at('a', 0.5, 0.2)], null],
    ['over no satellite that did not answer', own(150, 2), [at('a', null, 0)], null],
    ['over no satellite where no agent is', own(150, 2), [at('a', 1, null)], null],
    ['elsewhere where the server does not answer', own(null, 2), [at('a', 200, 2)], 'a'],
    [
      'over the server whose way is half known, if that half is shorter',
      own(20, null),
      [at('a', 10, 11)],
      null,
    ],
    ['elsewhere if it is not', own(150, null), [at('a', 10, 11)], 'a'],
  ])('%s', (_, ours, satellites, name) => {
    expect(nearest(ours, satellites)?.name ?? null).toBe(name);
  });
});

test('the reply lists what was measured, the shortest way first', () => {
  expect(wordsOf(own(150.4, 9.9), [at('tokyo', 5, 7.2), at('gone', null, 2), at('mars', 1e3, 1e3)])).toBe(
    '12 ms over tokyo, 160 ms over the server, 2000 ms over mars',
  );
  expect(wordsOf(own(null, 1), [])).toBe('');
});
