import { expect, test } from 'vitest';
import { findObstacles, type PathOutlook } from './obstacles.ts';

const all = ['relay', 'direct-tcp', 'direct-udp'] as const;
const relay = { kind: 'relay', rttMs: 40 } as const;
const outlook = (more: Partial<PathOutlook> = {}): PathOutlook => ({
  offered: all,
  addresses: ['10.0.0.7:4000'],
  isSearchingUdp: false,
  measured: [],
  ...more,
});
const codes = (options: Partial<Parameters<typeof findObstacles>[0]>) =>
  findObstacles({ active: relay, allowed: all, requested: all, outlook: outlook(), ...options }).map(
    ({ kind, code }) => `${kind} ${code}`,
  );

test('names what stands in the way of each better kind', () => {
  expect(codes({ active: { kind: 'direct-tcp', rttMs: 3 } })).toEqual([]);
  expect(codes({ allowed: ['relay'] })).toEqual(['direct-tcp forbidden', 'direct-udp forbidden']);
  expect(codes({ requested: ['relay'] })).toEqual(['direct-tcp not-requested', 'direct-udp not-requested']);
  expect(codes({ outlook: null })).toEqual(['direct-tcp unknown', 'direct-udp unknown']);
  expect(codes({ outlook: outlook({ offered: undefined }) })).toEqual([
    'direct-tcp unknown',
    'direct-udp unknown',
  ]);
  expect(codes({ outlook: outlook({ offered: null }) })).toEqual([
    'direct-tcp agent-outdated',
    'direct-udp agent-outdated',
  ]);
  expect(codes({ outlook: outlook({ offered: ['relay'] }) })).toEqual([
    'direct-tcp not-offered',
    'direct-udp not-offered',
  ]);
  expect(codes({ outlook: outlook({ addresses: [], isSearchingUdp: true }) })).toEqual([
    'direct-tcp no-address',
    'direct-udp searching',
  ]);
});

test('compares what was measured, and passes on why the rest was not', () => {
  const measured = [
    { kind: 'direct-udp', via: '203.0.113.9:7000', rttMs: 38 },
    { kind: 'direct-tcp', via: '10.0.0.7:4000', rttMs: null, error: 'no answer' },
  ] as const;
  const found = findObstacles({
    active: relay,
    allowed: all,
    requested: all,
    outlook: outlook({ measured }),
  });
  expect(found).toEqual([
    {
      kind: 'direct-tcp',
      code: 'unreachable',
      text: '10.0.0.7:4000: no answer',
      fix: expect.stringContaining('firewall'),
    },
    {
      kind: 'direct-udp',
      code: 'not-better',
      text: 'reachable, but not better by enough: 38 ms by 203.0.113.9:7000, and 40 ms now',
      fix: null,
    },
  ]);
  const faster = [{ kind: 'direct-tcp', via: '10.0.0.7:4000', rttMs: 8 }] as const;
  expect(codes({ outlook: outlook({ measured: faster }) })[0]).toBe('direct-tcp moving');
  const onUdp = { kind: 'direct-udp', rttMs: 30 } as const;
  expect(codes({ active: onUdp, outlook: outlook({ measured }) })).toEqual(['direct-tcp unreachable']);
});
