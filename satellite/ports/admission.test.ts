import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { makeAdmission, visitorOf } from './admission.ts';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const stays = new AbortController().signal;
const anonymous = (address: string) => visitorOf(null, address);

/** Requests `count` connections and returns those that were admitted at once. */
async function take(
  admission: ReturnType<typeof makeAdmission>,
  visitor: ReturnType<typeof visitorOf>,
  count: number,
) {
  const releases: (() => void)[] = [];
  let refused = 0;
  for (let at = 0; at < count; at++)
    admission.admit('w', visitor, stays).then(
      (release) => releases.push(release),
      () => (refused += 1),
    );
  await vi.advanceTimersByTimeAsync(0);
  return { releases, refused: () => refused };
}

test('an anonymous visitor is an address, or an IPv6 /64; a user is the same at every address', () => {
  expect(anonymous('192.0.2.1')).toEqual(anonymous('::ffff:192.0.2.1'));
  expect(anonymous('192.0.2.1')).not.toEqual(anonymous('192.0.2.2'));
  expect(anonymous('2001:db8:1:2::1')).toEqual(anonymous('2001:db8:1:2:ffff:ffff:ffff:ffff'));
  expect(anonymous('2001:db8:1:2::1')).not.toEqual(anonymous('2001:db8:1:3::1'));
  expect(anonymous('fe80::1%eth0').isSignedIn).toBe(false);
  expect(visitorOf('ada', '192.0.2.1')).toEqual(visitorOf('ada', '2001:db8::1'));
});

test('a visitor gets 100 connections, all anonymous ones 200, users the rest', async () => {
  const admission = makeAdmission();
  expect((await take(admission, anonymous('192.0.2.1'), 270)).releases).toHaveLength(100);
  expect((await take(admission, anonymous('192.0.2.2'), 270)).releases).toHaveLength(100);
  expect((await take(admission, anonymous('192.0.2.3'), 270)).releases).toHaveLength(0);
  expect((await take(admission, visitorOf('ada', '192.0.2.1'), 10)).releases).toHaveLength(10);
  expect((await take(admission, visitorOf('bob', '192.0.2.1'), 270)).releases).toHaveLength(40);
  // Other workspaces are not affected.
  expect(await admission.admit('other', anonymous('192.0.2.3'), stays)).toBeTypeOf('function');
});

test('a burst is queued in order, for a limited time', async () => {
  const admission = makeAdmission();
  const visitor = anonymous('192.0.2.1');
  const burst = await take(admission, visitor, 270);
  expect(burst.refused()).toBe(20);
  for (const release of burst.releases.slice()) release();
  await vi.advanceTimersByTimeAsync(0);
  expect(burst.releases).toHaveLength(200);
  await vi.advanceTimersByTimeAsync(30_000);
  expect(burst.refused()).toBe(70);
  // Releasing twice has no effect.
  for (const release of burst.releases) release();
  for (const release of burst.releases) release();
  expect((await take(admission, visitor, 101)).releases).toHaveLength(100);
});

test('a visitor who leaves is removed from the queue; users are admitted before anonymous visitors', async () => {
  const admission = makeAdmission();
  const first = await take(admission, anonymous('192.0.2.1'), 100);
  await take(admission, anonymous('192.0.2.2'), 100);
  await take(admission, visitorOf('bob', ''), 50);
  const leaving = new AbortController();
  const left = admission.admit('w', anonymous('192.0.2.3'), leaving.signal).catch((error) => error.code);
  const stranger = await take(admission, anonymous('192.0.2.4'), 1);
  const user = await take(admission, visitorOf('ada', '192.0.2.4'), 1);
  leaving.abort();
  expect(await left).toBe('server-busy');
  first.releases[0]!();
  await vi.advanceTimersByTimeAsync(0);
  expect([user.releases.length, stranger.releases.length]).toEqual([1, 0]);
  first.releases[1]!();
  await vi.advanceTimersByTimeAsync(0);
  expect(stranger.releases).toHaveLength(1);
});
