import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { holdAwake, type LeaseClient } from './hold-awake.ts';

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

const minute = 60_000;

const refusal = (code: string) => Object.assign(new Error(code), { code });

/** A server whose clock differs from the local one by `aheadMs`. */
function makeServer({ maxSeconds = 3600, aheadMs = 0 } = {}) {
  const active = new Set<string>();
  const asked: number[] = [];
  const client: LeaseClient = {
    async create(seconds) {
      if (seconds > maxSeconds) throw refusal('lease-too-long');
      asked.push(seconds);
      const id = String(asked.length);
      active.add(id);
      const at = Date.now() + aheadMs;
      return {
        id,
        createdAt: new Date(at).toISOString(),
        expiresAt: new Date(at + seconds * 1000).toISOString(),
      };
    },
    async end(id) {
      active.delete(id);
    },
  };
  return { client, active, asked };
}
const onProblem = (error: unknown) => expect.unreachable(String(error));

test.each([
  -30,
  -24 * 60,
  30,
  24 * 60,
])('a lease is renewed after a third of it if the server’s clock is %i min ahead', async (minutes) => {
  const { client, active, asked } = makeServer({ aheadMs: minutes * minute });
  const held = await holdAwake(client, { maxSeconds: undefined, onProblem });
  await vi.advanceTimersByTimeAsync(9 * minute);
  expect(asked).toEqual([1800]);
  await vi.advanceTimersByTimeAsync(2 * minute);
  expect(asked).toEqual([1800, 1800]);
  await held.release();
  expect(active.size).toBe(0);
});

test('the maximum is unaffected by a local clock that is set', async () => {
  const { client, asked } = makeServer();
  const held = await holdAwake(client, { maxSeconds: 15 * 60, onProblem });
  expect(asked).toEqual([900]);
  await held.release();

  const long = makeServer();
  const holding = await holdAwake(long.client, { maxSeconds: 40 * 60, onProblem });
  vi.setSystemTime(Date.now() + 24 * 60 * minute);
  await vi.advanceTimersByTimeAsync(11 * minute);
  vi.setSystemTime(Date.now() - 48 * 60 * minute);
  await vi.advanceTimersByTimeAsync(60 * minute);
  // The second reaches the maximum.
  expect(long.asked).toEqual([1800, 1800]);
  await holding.release();
});

test('a server that extends leases keeps one; it is ended once', async () => {
  const server = makeServer();
  const renewed: (string | undefined)[] = [];
  const ended: string[] = [];
  const client: LeaseClient = {
    async create(seconds, renews) {
      renewed.push(renews);
      return { ...(await server.client.create(seconds)), id: 'one' };
    },
    async end(id) {
      ended.push(id);
    },
  };
  const held = await holdAwake(client, { maxSeconds: undefined, onProblem });
  await vi.advanceTimersByTimeAsync(21 * minute);
  expect(renewed).toEqual([undefined, 'one', 'one']);
  expect(ended).toEqual([]);
  await held.release();
  expect(ended).toEqual(['one']);
});

test('shorter leases are used if the installation does not allow longer ones', async () => {
  const { client, asked } = makeServer({ maxSeconds: 600 });
  const held = await holdAwake(client, { maxSeconds: undefined, onProblem });
  await vi.advanceTimersByTimeAsync(4 * minute);
  expect(asked).toEqual([600, 600]);
  await held.release();
});

test('a renewal that fails is repeated after a minute, and reported once until one succeeds', async () => {
  const server = makeServer();
  let isReachable = true;
  const client: LeaseClient = {
    ...server.client,
    async create(seconds) {
      if (!isReachable) throw refusal('server-unreachable');
      return server.client.create(seconds);
    },
  };
  const problems: string[] = [];
  const held = await holdAwake(client, {
    maxSeconds: undefined,
    onProblem: (error) => problems.push((error as Error).message),
  });
  const warning = 'server-unreachable';
  isReachable = false;
  await vi.advanceTimersByTimeAsync(13 * minute);
  expect(problems).toEqual([warning]);
  isReachable = true;
  await vi.advanceTimersByTimeAsync(minute);
  expect(server.asked).toEqual([1800, 1800]);
  isReachable = false;
  await vi.advanceTimersByTimeAsync(11 * minute);
  expect(problems).toEqual([warning, warning]);
  await held.release();
  expect(server.active.size).toBe(0);
});

test('a lease that is being renewed at the release ends, too', async () => {
  const server = makeServer();
  const reply = Promise.withResolvers<void>();
  let isFirst = true;
  const client: LeaseClient = {
    ...server.client,
    async create(seconds) {
      if (!isFirst) await reply.promise;
      isFirst = false;
      return server.client.create(seconds);
    },
  };
  const held = await holdAwake(client, { maxSeconds: undefined, onProblem });
  await vi.advanceTimersByTimeAsync(11 * minute);
  const released = held.release();
  reply.resolve();
  await released;
  expect(server.asked).toEqual([1800, 1800]);
  expect(server.active.size).toBe(0);
  await vi.advanceTimersByTimeAsync(60 * minute);
  expect(server.asked).toEqual([1800, 1800]);
});

test('the first one that is refused is an error, or tried again after a minute where the work matters more', async () => {
  const server = makeServer();
  let isReachable = false;
  const client: LeaseClient = {
    ...server.client,
    async create(seconds) {
      if (!isReachable) throw refusal('server-unreachable');
      return server.client.create(seconds);
    },
  };
  await expect(holdAwake(client, { maxSeconds: undefined, onProblem })).rejects.toThrow('server-unreachable');
  const problems: unknown[] = [];
  const held = await holdAwake(client, {
    maxSeconds: undefined,
    startsWithout: true,
    onProblem: (error) => problems.push(error),
  });
  expect(problems).toHaveLength(1);
  isReachable = true;
  await vi.advanceTimersByTimeAsync(minute);
  expect(server.active.size).toBe(1);
  await held.release();
  expect(server.active.size).toBe(0);
});
