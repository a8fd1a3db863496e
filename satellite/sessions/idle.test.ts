import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { setImmediate as nextTurn, setTimeout as really } from 'node:timers/promises';
import type { Clock } from '@cde/tunnel/clock.ts';
import { listenDirect } from '@cde/tunnel/paths/direct-tcp.ts';
import type { PathKind } from '@cde/tunnel/pipe/path.ts';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { makeWorld, type World } from '../testing.ts';

/** Traffic of idle sessions and agents, counted by proxies, in virtual time. */
let world: World;
const closers: (() => void)[] = [];
beforeEach(async () => {
  vi.useFakeTimers({
    toFake: ['setInterval', 'clearInterval', 'setTimeout', 'clearTimeout', 'performance'],
    now: 1_000_000,
  });
  world = await makeWorld();
});
afterEach(async () => {
  vi.useRealTimers();
  for (const close of closers.splice(0).reverse()) close();
  await world.close();
});

const clock: Clock = {
  now: () => performance.now(),
  random: () => 0.5,
  sleep: (ms, signal) =>
    new Promise((resolve) => {
      if (signal.aborted) return resolve();
      const timer = setTimeout(resolve, ms);
      const wake = () => {
        clearTimeout(timer);
        resolve();
      };
      signal.addEventListener('abort', wake, { once: true });
    }),
};

/** Advances the time second by second, and waits until everything that was sent has arrived. */
async function pass(seconds: number): Promise<void> {
  for (let second = 0; second < seconds; second++) {
    await vi.advanceTimersByTimeAsync(1_000);
    // Counts turns of the event loop instead of time, so that a busy machine does not look like a silent one.
    for (let turn = 0; turn < 12; turn++) await nextTurn();
  }
}

/** Waits for the condition without advancing the time. */
async function until(so: () => boolean): Promise<void> {
  for (let times = 0; !so(); times++) {
    if (times > 2_000) throw new Error(`never: ${so}`);
    await really(2);
  }
}

/** A TCP proxy that counts chunks per direction, roughly as packets. */
async function counted(port: number) {
  const count = { there: 0, back: 0, swallow: false };
  const sockets = new Set<Socket>();
  const server = createServer({ noDelay: true }, (one) => {
    const other = connect({ port, host: '127.0.0.1', noDelay: true });
    for (const [from, to, way] of [[one, other, 'there'] as const, [other, one, 'back'] as const]) {
      sockets.add(from);
      from.on('data', (chunk) => {
        count[way]++;
        if (!count.swallow) to.write(chunk);
      });
      from.on('error', () => {});
      from.on('close', () => to.destroy());
    }
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  closers.push(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const address = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  return {
    address,
    url: `http://${address}`,
    count,
    /** Packets per 30 s and direction, averaged over `seconds`. */
    async during(seconds: number) {
      const before = { ...count };
      await pass(seconds);
      const per = (packets: number) => Math.round((packets * 300) / seconds) / 10;
      return { there: per(count.there - before.there), back: per(count.back - before.back) };
    },
  };
}

async function begin(paths: PathKind[]) {
  const satellite = await world.satellite();
  const [toClient, toAgent] = [await counted(satellite.port), await counted(satellite.port)];
  let address = '';
  const { registry, states } = world.agent(
    toAgent.url,
    {
      clock,
      paths: () => ['relay', 'direct-tcp'],
      offers: {
        current: () => ({ paths, satellites: [], addresses: address === '' ? [] : [address] }),
        onChange: () => () => {},
      },
    },
    { clock },
  );
  await states.next();
  const own = await listenDirect({ host: '127.0.0.1', port: 0, onPath: registry.accept });
  closers.push(() => own.close());
  const direct = await counted(own.port);
  address = direct.address;
  const lost: string[] = [];
  const ticket = { ticket: await world.ticket({ paths: ['relay', 'direct-tcp'] }), agentKey: world.agentKey };
  const satellites = [{ name: 'one', url: toClient.url }];
  const session = await world.open(toClient.url, {
    ...ticket,
    satellites,
    renewTicket: async () => ({ ...ticket, satellites }),
    steer: { paths, networkNow: () => 'one' },
    onPath: (what, reason) => what === 'lost' && lost.push(reason.code),
    clock,
  });
  const stream = await session.open({ kind: 'ssh' });
  let got = '';
  stream.on('error', () => {});
  stream.setEncoding('utf8').on('data', (text: string) => {
    got += text;
  });
  const echo = async (text: string) => {
    stream.write(text);
    await until(() => got.endsWith(text));
  };
  await echo('hello');
  return { session, toClient, toAgent, direct, echo, stream, lost };
}

test('an idle relayed session and a waiting agent cost at most one small packet per 30 s each way', async () => {
  const { session, toClient, toAgent, echo, lost } = await begin(['relay']);
  // While in use and shortly after: a beat every 5 s, so that a dead path is detected soon.
  const used = await toClient.during(20);
  expect(used.there).toBeGreaterThan(4);
  await pass(120);
  const before = { ...toAgent.count };
  const client = await toClient.during(1_200);
  const per = (now: number, then: number) => Math.round(((now - then) * 300) / 1_200) / 10;
  expect(client.there).toBeLessThanOrEqual(1);
  expect(client.back).toBeLessThanOrEqual(1);
  // Two sockets: the session's, and the agent's next spare.
  expect(per(toAgent.count.there, before.there)).toBeLessThanOrEqual(2);
  expect(per(toAgent.count.back, before.back)).toBeLessThanOrEqual(2);
  expect(lost).toEqual([]);
  await echo(' again');
  expect(session.path.kind).toBe('relay');
}, 60_000);

test('so does an idle direct session; the first keystroke after a pause detects a dead path within seconds', async () => {
  const { session, toClient, direct, echo, lost, stream } = await begin(['direct-tcp']);
  expect(session.path.kind).toBe('direct-tcp');
  await pass(120);
  const idle = await direct.during(1_200);
  expect(idle.there).toBeLessThanOrEqual(1);
  expect(idle.back).toBeLessThanOrEqual(1);
  expect(toClient.count.there).toBeGreaterThan(0);
  await echo(' again');
  await pass(120);
  expect(lost).toEqual([]);
  direct.count.swallow = true;
  stream.write('x');
  await pass(8);
  expect(lost).toEqual(['path-lost']);
}, 60_000);

test('the same over a relay', async () => {
  const { toClient, lost, stream } = await begin(['relay']);
  await pass(120);
  toClient.count.swallow = true;
  stream.write('x');
  await pass(15);
  expect(lost[0]).toBe('satellite-lost');
}, 60_000);
