import type { SatelliteConfig, SatelliteManifest } from '@cde/api/satellites.ts';
import { silentLog } from '@cde/tunnel/log.ts';
import { expect, test } from 'vitest';
import { makeMembership, makeServerState } from './membership.ts';

const settings = { ticketKeys: ['key'], web: null, dashboard: 'https://cde.example' };
const manifest = (drain = false): SatelliteManifest => ({
  ...settings,
  drain,
  id: 'id',
  name: 'eu-1',
  region: 'eu',
  heartbeatEveryMs: 1,
});
const orders = (more: Partial<SatelliteConfig> = {}): SatelliteConfig => ({
  ...settings,
  drain: false,
  endUsers: [],
  ...more,
});

/** A relay with two sessions, of which the test can end all. */
function makeWorld() {
  const done: string[] = [];
  let sessions = 2;
  let draining = false;
  const { promise: drained, resolve } = Promise.withResolvers<void>();
  const state = makeServerState();
  const membership = makeMembership({
    state,
    relay: {
      get draining() {
        return draining;
      },
      drain() {
        draining = true;
        done.push('drain');
        return drained;
      },
      reopen() {
        draining = false;
        done.push('reopen');
      },
      evict: () => void done.push('evict'),
      endUser: (user) => void done.push(`end ${user}`),
      stats: () => ({ sessions }) as never,
    },
    ports: { closeAll: () => void done.push('close ports') },
    terminals: { evictAll: () => void done.push('evict terminals') },
    log: silentLog,
  });
  const endSessions = () => {
    sessions = 0;
    resolve();
  };
  return { membership, state, endSessions, done: () => done.splice(0) };
}

test('a satellite that registers serves what it is told to', () => {
  const { membership, state, done } = makeWorld();
  expect(state.registered).toBe(false);
  membership.registered(manifest());
  expect(state).toEqual({ ...settings, registered: true, id: 'id', name: 'eu-1' });
  expect(membership.condition()).toBe('serving');
  // Without a web part it must not keep terminals that it opened before.
  expect(done()).toEqual(['evict terminals']);
  membership.apply(orders({ web: { portHost: null }, ticketKeys: ['new'] }));
  expect(state.ticketKeys).toEqual(['new']);
  expect(done()).toEqual([]);
});

test('an order to drain is carried out once, and changes the condition until it is taken back', () => {
  const { membership, endSessions, done } = makeWorld();
  const web = { portHost: null };
  membership.registered({ ...manifest(), web });
  expect(membership.apply(orders({ web, drain: true }))).toBe(true);
  expect(done()).toEqual(['close ports', 'drain', 'evict']);
  expect(membership.condition()).toBe('draining');
  expect(membership.apply(orders({ web, drain: true }))).toBe(false);
  expect(done()).toEqual([]);
  endSessions();
  expect(membership.condition()).toBe('drained');
  expect(membership.apply(orders({ web }))).toBe(true);
  expect(done()).toEqual(['reopen']);
  expect(membership.condition()).toBe('serving');
});

test('a satellite that is drained when it starts drains as soon as it has registered', () => {
  const { membership, done } = makeWorld();
  membership.registered({ ...manifest(true), web: { portHost: null } });
  expect(done()).toEqual(['close ports', 'drain', 'evict']);
});

test('users whose access was revoked lose their sessions', () => {
  const { membership, done } = makeWorld();
  membership.apply(orders({ web: { portHost: null }, endUsers: ['ada', 'bob'] }));
  expect(done()).toEqual(['end ada', 'end bob']);
});

test('once it stops, no order makes it serve again', () => {
  const { membership, done } = makeWorld();
  const web = { portHost: null };
  membership.apply(orders({ web, drain: true }));
  membership.stop();
  done();
  expect(membership.apply(orders({ web }))).toBe(false);
  expect(done()).toEqual([]);
  expect(membership.condition()).toBe('stopping');
});
