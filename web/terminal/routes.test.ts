import { describe, expect, test } from 'vitest';
import { chooseSatellite, describeRoutes, type SatelliteRoute } from './routes.ts';

const own = (rttMs: number | null, agentRttMs: number | null) => ({ rttMs, agentRttMs });
const at = (name: string, rttMs: number | null, agentRttMs: number | null): SatelliteRoute => ({
  name,
  url: `https://${name}`,
  code: '',
  rttMs,
  agentRttMs,
});

describe('a terminal connects', () => {
  test.each([
    [
      'through the satellite with the shortest round trip in total',
      own(150, 2),
      [at('far', 5, 140), at('near', 5, 10)],
      'near',
    ],
    ['through the server if there is no satellite', own(150, 2), [], null],
    ['through the server if the satellite is no better', own(20, 2), [at('a', 20, 3)], null],
    ['through the server if the gain is not noticeable', own(100, 20), [at('a', 100, 11)], null],
    ['through the satellite for a gain of ten milliseconds', own(100, 20), [at('a', 100, 10)], 'a'],
    ['through the satellite for a gain of a tenth', own(8, 2), [at('a', 7, 2)], 'a'],
    ['through the server if the gain is within the noise', own(1, 0.5), [at('a', 0.5, 0.2)], null],
    ['not through a satellite that did not respond', own(150, 2), [at('a', null, 0)], null],
    ['not through a satellite without an agent', own(150, 2), [at('a', 1, null)], null],
    ['through the satellite if the server does not respond', own(null, 2), [at('a', 200, 2)], 'a'],
    [
      'through the server if the known part of its round trip is shorter',
      own(20, null),
      [at('a', 10, 11)],
      null,
    ],
    ['through the satellite if that part is longer', own(150, null), [at('a', 10, 11)], 'a'],
  ])('%s', (_, ours, satellites, name) => {
    expect(chooseSatellite(ours, satellites)?.name ?? null).toBe(name);
  });
});

test('the description lists the measured routes, shortest first', () => {
  expect(
    describeRoutes(own(150.4, 9.9), [at('tokyo', 5, 7.2), at('gone', null, 2), at('mars', 1e3, 1e3)]),
  ).toBe('12 ms over tokyo, 160 ms over the server, 2000 ms over mars');
  expect(describeRoutes(own(null, 1), [])).toBe('');
});
