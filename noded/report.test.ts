import { expect, test } from 'vitest';
import type { PassResult, ProfileState } from './reconcile.ts';
import { annotationKey, driftsOf, eventsOf, lastReport, makeReport, type NodeView } from './report.ts';

const notReady: ProfileState = { state: 'not-ready', reason: 'conflict', message: 'a wants 1, b wants 2' };
const drift = { at: '2026-01-01T00:00:00.000Z', sysctl: 'vm.swappiness', from: '30', to: '1' };
const pass = (state: ProfileState, more: Partial<PassResult> = {}): PassResult => ({
  states: new Map([['a', state]]),
  left: new Map(),
  drifts: new Map(),
  maintained: [],
  ...more,
});
const at = (minute: number) => new Date(Date.UTC(2026, 0, 1, 0, minute));
const nodeWith = (report: object | null): NodeView => ({
  uid: '1',
  labels: {},
  annotations: report ? { [annotationKey]: JSON.stringify(report) } : ({} as Record<string, string>),
});

test('a profile keeps the time of its state until the state or its reason changes', () => {
  const first = makeReport(pass({ state: 'ready' }), null, null, at(1));
  expect(first?.profiles.a).toEqual({ state: 'ready', since: at(1).toISOString() });
  const later = makeReport(pass({ state: 'ready' }), null, first, at(2));
  expect(later).toEqual(first);
  const worse = makeReport(pass(notReady), null, later, at(3));
  expect(worse?.profiles.a?.since).toBe(at(3).toISOString());
  const reworded = { ...notReady, message: 'a wants 1, b wants 3' };
  expect(makeReport(pass(reworded), null, worse, at(4))?.profiles.a?.since).toBe(at(3).toISOString());
  // After a restart, from what the node says.
  const recalled = lastReport(nodeWith(worse));
  expect(makeReport(pass(notReady), null, recalled, at(5))).toEqual(worse);
});

test('a drift is one event, however often it is reported', () => {
  const calm = makeReport(pass({ state: 'ready' }), null, null, at(1));
  const drifted = makeReport(
    pass({ state: 'ready' }, { drifts: new Map([['a', drift]]) }),
    null,
    calm,
    at(2),
  );
  expect(eventsOf(nodeWith(calm), drifted)).toEqual([
    {
      type: 'Warning',
      reason: 'KernelProfileDrift',
      message: 'The kernel profile a: vm.swappiness was changed to 30, and noded set it to 1 again.',
    },
  ]);
  expect(eventsOf(nodeWith(drifted), drifted)).toEqual([]);
});

test('values of any size leave the report short enough for the server to read', () => {
  const long = '1-2,'.repeat(16_000);
  const report = makeReport(
    pass(
      { state: 'ready' },
      { drifts: new Map([['a', { ...drift, from: long, to: long }]]), left: new Map([['x.y', long]]) },
    ),
    null,
    null,
    at(1),
  );
  expect(JSON.stringify(report).length).toBeLessThan(2_500);
});

test('what another program wrote into the annotation is ignored', () => {
  for (const text of ['{', 'null', '[]'])
    expect(
      lastReport({ uid: '', labels: {}, annotations: { [annotationKey]: text } }).profiles,
    ).toBeUndefined();
  expect(driftsOf(nodeWith({ profiles: { a: null } }))).toEqual([]);
});
