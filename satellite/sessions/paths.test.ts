import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { TunnelError } from '@cde/tunnel/errors.ts';
import { type DirectListener, listenDirect } from '@cde/tunnel/paths/direct-tcp.ts';
import type { DirectTimes } from '@cde/tunnel/paths/liveness.ts';
import { listenRelay, type RelayListener } from '@cde/tunnel/paths/relay.ts';
import type { PathKind } from '@cde/tunnel/pipe/path.ts';
import type { PathChange } from '@cde/tunnel/selection/history.ts';
import type { Prober } from '@cde/tunnel/selection/measure.ts';
import type { SteerOptions } from '@cde/tunnel/selection/steer.ts';
import type { SessionRegistryOptions } from '@cde/tunnel/session/registry.ts';
import type { Session, SessionOptions } from '@cde/tunnel/session/session.ts';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { makeWorld, type World } from '../testing.ts';

/**
 * Sessions that choose their path: real satellites and agents on loopback, with delays by proxies. The round trips of
 * relays are given, so that a busy machine does not change the choice; direct paths are measured and far shorter.
 */
const ssh = { kind: 'ssh' } as const;
const both: PathKind[] = ['relay', 'direct-tcp'];
const times = { firstMs: 20, quickMs: 40, slowMs: 300, idleMs: 300, probeMs: 2_000, offerMs: 3_000 };
const relayAgain = ['opened relay', 'moved direct-tcp', 'lost direct-tcp', 'resumed relay'];
const patience = { timeout: 8_000, interval: 10 };

let world: World;
let closers: (() => void)[];
beforeEach(async () => {
  world = await makeWorld();
  closers = [];
});
afterEach(async () => {
  for (const close of closers.reverse()) close();
  await world.close();
});

/**
 * A satellite with separate delays for client and agent, in milliseconds of round trip. `times` multiplies the reported
 * ones, for tests in which it should not be the best.
 */
async function satellite(name: string, clientMs: number, agentMs: number, times = 1) {
  const { port, relay } = await world.satellite();
  const [toClient, toAgent] = [await world.proxy(port, clientMs / 2), await world.proxy(port, agentMs / 2)];
  const told = { client: clientMs * times, agent: agentMs * times };
  return { name, relay, toClient, toAgent, told, place: { name, url: toClient.url } };
}
type TestSatellite = Awaited<ReturnType<typeof satellite>>;

/** An agent at these satellites, with a direct listener behind a proxy. */
async function agentAt(
  places: TestSatellite[],
  host: Partial<SessionRegistryOptions> = {},
  direct: DirectTimes = {},
) {
  const listeners = new Map<string, RelayListener>();
  const state: { addresses: string[]; paths: readonly PathKind[] } = { addresses: [], paths: both };
  const tell = new Set<() => void>();
  const offers = {
    current: () => ({
      ...state,
      satellites: places.map(({ name, toAgent, told }) => ({ name, url: toAgent.url, rttMs: told.agent })),
    }),
    onChange(changed: () => void) {
      tell.add(changed);
      return () => tell.delete(changed);
    },
  };
  const changed = () => {
    for (const each of tell) each();
  };
  const { registry, listener } = world.agent(
    places[0]!.toAgent.url,
    { offers, paths: () => state.paths, ...host },
    { onRtt: changed },
  );
  listeners.set(places[0]!.name, listener);
  for (const { name, toAgent } of places.slice(1)) {
    const one = listenRelay({
      url: toAgent.url,
      listenToken: () => world.listenToken(),
      onPath: (path) => registry.accept(path),
      onRtt: changed,
    });
    closers.push(() => one.close());
    listeners.set(name, one);
  }
  await vi.waitFor(() => {
    for (const each of listeners.values()) expect(each.rttMs).not.toBeNull();
  }, patience);
  const own: DirectListener = await listenDirect({
    host: '127.0.0.1',
    port: 0,
    onPath: registry.accept,
    ...direct,
  });
  closers.push(() => own.close());
  const proxy = await world.proxy(own.port);
  return {
    registry,
    own,
    proxy,
    /** Changes the offered addresses. */
    offer(...addresses: string[]) {
      state.addresses = addresses;
      changed();
    },
    allow(...paths: PathKind[]) {
      state.paths = paths;
    },
  };
}

async function open(
  places: TestSatellite[],
  more: Partial<SessionOptions> = {},
  steer: Partial<SteerOptions> = {},
  ticket = world.ticket({ paths: both }),
): Promise<{ session: Session; changes: PathChange[]; what: () => string[]; rounds: () => number }> {
  const changes: PathChange[] = [];
  const reply = {
    ticket: await ticket,
    agentKey: world.agentKey,
    satellites: places.map(({ place }) => place),
  };
  const known = new Map<string, number>();
  let rounds = 0;
  const prober: Prober = {
    async rtt(url) {
      const found = places.find(({ place }) => place.url === url);
      if (!found || found.name === 'dead') throw new TunnelError('satellite-unreachable');
      return found.told.client;
    },
    close() {},
  };
  const put = (url: string, ms: number) => {
    known.set(url, ms);
    if (url === places[0]!.place.url) rounds++;
  };
  const session = await world.open([], {
    ...reply,
    renewTicket: async () => reply,
    onChange: (change) => changes.push(change),
    steer: {
      paths: both,
      times,
      book: { get: (url) => known.get(url), put },
      prober,
      networkNow: () => 'one',
      ...steer,
    },
    ...more,
  });
  return {
    session,
    changes,
    what: () => changes.map(({ what, kind }) => `${what} ${kind}`),
    rounds: () => rounds,
  };
}

/** Waits until the session keeps a relay path in reserve and no other path goes through the satellite. */
async function held(
  { relay }: TestSatellite,
  { registry }: Awaited<ReturnType<typeof agentAt>>,
): Promise<void> {
  await vi.waitFor(() => {
    expect(registry.stats().reserves).toBe(1);
    expect(relay.stats().sessions).toBe(1);
  }, patience);
}

/** Sends blocks and compares their echoes until `stop`; by then everything must have arrived in order. */
function talk(session: Session): { stop(): Promise<number>; bytes: () => number } {
  const sent: Buffer[] = [];
  const got: Buffer[] = [];
  let going = true;
  const stream = session.open(ssh);
  const done = stream.then(async (duplex: Duplex) => {
    duplex.on('data', (chunk: Buffer) => got.push(chunk));
    const ended = once(duplex, 'end');
    while (going) {
      const block = randomBytes(1 + Math.floor(Math.random() * 200_000));
      sent.push(block);
      if (!duplex.write(block)) await once(duplex, 'drain');
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    duplex.end();
    await ended;
  });
  done.catch(() => {});
  return {
    bytes: () => got.reduce((sum, { length }) => sum + length, 0),
    async stop() {
      going = false;
      await done;
      expect(Buffer.concat(got).equals(Buffer.concat(sent))).toBe(true);
      return got.reduce((sum, { length }) => sum + length, 0);
    },
  };
}

describe('the relay of a session', () => {
  it('is the one with the shortest round trip from client to agent, not to the satellite', async () => {
    const near = await satellite('near', 4, 60);
    const far = await satellite('far', 80, 4);
    const best = await satellite('best', 20, 10);
    const dead = { ...best, name: 'dead', place: { name: 'dead', url: 'http://127.0.0.1:1' } };
    await agentAt([near, far, best]);
    // The ticket's reply contains the agent's round trips, as the server knows them.
    const told = (place: TestSatellite, agentRttMs: number) => ({
      ...place,
      place: { ...place.place, agentRttMs },
    });
    const { session, changes } = await open([dead, told(near, 60), told(far, 4), told(best, 10)]);
    expect(session.path.via).toBe(best.place.url);
    expect(changes[0]).toMatchObject({ what: 'opened', kind: 'relay', reason: 'nearest' });
    const [first, ...others] = changes[0]!.measured;
    expect(first).toMatchObject({ via: best.place.url, clientMs: 20, agentMs: 10 });
    expect(others.map(({ rttMs }) => rttMs)).toEqual([64, 84, null]);
    expect(session.history).toEqual(changes);
  });

  it('is replaced by a better one while bytes flow both ways, without losing any', async () => {
    const one = await satellite('one', 40, 40);
    const other = await satellite('other', 10, 10);
    await agentAt([one, other]);
    const { session, changes } = await open([one, other], {}, { book: undefined });
    expect(session.path.via).toBe(one.place.url);
    const talking = talk(session);
    await vi.waitFor(() => expect(session.path.via).toBe(other.place.url), patience);
    const at = talking.bytes();
    await vi.waitFor(() => expect(talking.bytes()).toBeGreaterThan(at + 1_000_000), patience);
    expect(await talking.stop()).toBeGreaterThan(1_000_000);
    expect(changes.map(({ what, reason }) => [what, reason])).toEqual([
      ['opened', 'first'],
      ['moved', 'faster'],
    ]);
    const [best, worse] = changes[1]!.measured;
    expect(best!.via).toBe(other.place.url);
    expect(best!.rttMs! + 10).toBeLessThan(worse!.rttMs!);
  });

  it('stays if there is no difference', async () => {
    const one = await satellite('one', 20, 20);
    const other = await satellite('other', 20, 20);
    await agentAt([one, other]);
    const { session, changes, rounds } = await open([one, other]);
    await vi.waitFor(() => expect(rounds()).toBeGreaterThan(8), patience);
    expect(changes).toHaveLength(1);
    expect(session.path.kind).toBe('relay');
  });
});

describe('a direct path', () => {
  it('is used while it works, and replaced by the relay as soon as it breaks, without losing a byte', async () => {
    const place = await satellite('one', 6, 6, 100);
    const agent = await agentAt([place]);
    agent.offer('127.0.0.1:1', agent.proxy.address);
    const { session, changes, what } = await open([place]);
    const talking = talk(session);
    await vi.waitFor(() => expect(session.path.kind).toBe('direct-tcp'), patience);
    expect(session.path.via).toBe(agent.proxy.address);
    expect(changes[1]!.measured).toMatchObject([
      { kind: 'direct-tcp', via: agent.proxy.address },
      { kind: 'relay', via: place.place.url },
      { kind: 'direct-tcp', via: '127.0.0.1:1', rttMs: null, error: expect.stringContaining('refused') },
    ]);
    // The relay is held in reserve: a pair without traffic at the satellite.
    await held(place, agent);
    const relayed = place.relay.stats().bytesToClients;
    const at = talking.bytes();
    await vi.waitFor(() => expect(talking.bytes()).toBeGreaterThan(at + 1_000_000), patience);
    expect(place.relay.stats().bytesToClients - relayed).toBeLessThan(10_000);

    // Over the reserve: nothing can be dialled.
    agent.proxy.shut();
    place.toClient.shut();
    agent.proxy.cut();
    await vi.waitFor(() => expect(what()).toContain('resumed relay'), patience);
    const after = talking.bytes();
    await vi.waitFor(() => expect(talking.bytes()).toBeGreaterThan(after + 500_000), patience);
    await talking.stop();
    expect(what().slice(0, 4)).toEqual(relayAgain);
    expect(changes[2]).toMatchObject({ reason: 'path-lost' });
    expect(agent.registry.stats()).toMatchObject({ sessions: 1, waiting: 0 });
  });

  it('is abandoned if what is sent gets no response', async () => {
    const place = await satellite('one', 6, 6, 100);
    const agent = await agentAt([place], {}, { unansweredMs: 1_500 });
    agent.offer(agent.proxy.address);
    const { session, changes, what } = await open([place], { unansweredMs: 1_500 });
    const stream = await session.open(ssh);
    await vi.waitFor(() => expect(session.path.kind).toBe('direct-tcp'), patience);
    await held(place, agent);
    agent.proxy.shut();
    agent.proxy.swallow();
    stream.write('typed');
    expect(String((await once(stream, 'data'))[0])).toBe('typed');
    expect(what().slice(0, 4)).toEqual(relayAgain);
    expect(changes[2]!.text).toContain('no answer');
  });

  it('is also abandoned if only the agent sends', async () => {
    const place = await satellite('one', 6, 6, 100);
    let theirs: Duplex | undefined;
    const onStream = (_target: unknown, stream: Duplex) => {
      theirs = stream;
      stream.on('error', () => {});
      return undefined;
    };
    const agent = await agentAt([place], { onStream }, { unansweredMs: 1_500 });
    agent.offer(agent.proxy.address);
    // The client alone would not notice.
    const { session, what } = await open([place], { unansweredMs: 600_000 });
    const stream = await session.open(ssh);
    stream.resume();
    await vi.waitFor(() => expect(session.path.kind).toBe('direct-tcp'), patience);
    await held(place, agent);
    agent.proxy.shut();
    agent.proxy.swallow();
    const got = once(stream, 'data');
    theirs!.write('a line of a log');
    expect(String((await got)[0])).toBe('a line of a log');
    expect(what().slice(0, 4)).toEqual(relayAgain);
  });

  it('reports why it is unavailable', async () => {
    const place = await satellite('one', 2, 2, 100);
    const agent = await agentAt([place]);
    agent.offer('127.0.0.1:1');
    const { session, changes } = await open([place]);
    await vi.waitFor(() => expect(changes).toHaveLength(2), patience);
    expect(changes[1]).toMatchObject({
      what: 'unavailable',
      kind: 'direct-tcp',
      reason: 'path-unreachable',
      text: expect.stringContaining('127.0.0.1:1: connection refused'),
    });
    expect(session.path.kind).toBe('relay');
  });
});

describe('strangers at the direct port', () => {
  let agent: Awaited<ReturnType<typeof agentAt>>;
  let place: TestSatellite;
  beforeEach(async () => {
    place = await satellite('one', 2, 2, 100);
    agent = await agentAt([place]);
  });

  /** Connects, sends the bytes, and resolves with everything received once it is disconnected. */
  async function knock(bytes: Buffer | string): Promise<Buffer> {
    const socket: Socket = connect(agent.own.port, '127.0.0.1');
    const got: Buffer[] = [];
    socket.on('data', (chunk) => got.push(chunk));
    socket.on('error', () => {});
    socket.write(bytes);
    await once(socket, 'close');
    return Buffer.concat(got);
  }
  const frame = (type: number, payload: Buffer) => {
    const header = Buffer.alloc(16);
    header[0] = 1;
    header[1] = type;
    header.writeUInt32BE(payload.length, 4);
    return Buffer.concat([header, payload]);
  };

  it.each<[string, Buffer | string]>([
    ['HTTP', 'GET / HTTP/1.1\r\nhost: x\r\n\r\n'],
    ['a session that would begin here', frame(1, Buffer.from([22, 3, 1, 0, 5, 1, 0, 0, 1, 0]))],
    ['a session that nobody knows', frame(5, Buffer.concat([Buffer.of(1), randomBytes(32)]))],
    ['a proof before a question', frame(5, Buffer.concat([Buffer.of(3), randomBytes(32)]))],
    ['a close', frame(3, Buffer.from('session-closed'))],
    ['noise', randomBytes(4096)],
  ])('get not one byte: %s', async (_name, bytes) => {
    expect(await knock(bytes)).toHaveLength(0);
  });

  it('are disconnected after three seconds, and above the limit at once', async () => {
    const began = performance.now();
    const silent = Array.from({ length: 12 }, () => connect(agent.own.port, '127.0.0.1'));
    const ends = silent.map(async (socket) => {
      socket.on('error', () => {});
      socket.resume();
      await once(socket, 'close');
      return performance.now() - began;
    });
    const after = (await Promise.all(ends)).sort((one, other) => one - other);
    // Eight connections per address are allowed; the others are closed at once. On a busy machine that may take a while.
    expect(after[4]! - after[3]!).toBeGreaterThan(100);
    expect(after[4]).toBeGreaterThan(2_500);
    // A client with a session can connect again.
    agent.offer(agent.proxy.address);
    const { session } = await open([place]);
    await vi.waitFor(() => expect(session.path.kind).toBe('direct-tcp'), patience);
  });
});

describe('the policy', () => {
  it('keeps a session on its relay if the ticket or the agent allows nothing else', async () => {
    const place = await satellite('one', 2, 2, 100);
    const agent = await agentAt([place]);
    agent.offer(agent.proxy.address);
    for (const [ticket, allowed] of [
      [world.ticket({ paths: ['relay'] }), both],
      [world.ticket({ paths: both }), ['relay'] as PathKind[]],
    ] as const) {
      agent.allow(...allowed);
      const { session, changes, rounds } = await open([place], {}, {}, ticket);
      await vi.waitFor(() => expect(rounds()).toBeGreaterThan(5), patience);
      expect(changes).toHaveLength(1);
      await expect(
        open([place], {}, { paths: ['direct-tcp'] }, world.ticket({ paths: [...allowed].slice(0, 1) })),
      ).rejects.toMatchObject({ code: 'path-forbidden' });
      session.close();
    }
  });

  it('makes the agent reject a path that the client uses anyway', async () => {
    const place = await satellite('one', 2, 2, 100);
    const agent = await agentAt([place]);
    agent.offer(agent.proxy.address);
    const { session, changes, what } = await open([place]);
    await vi.waitFor(() => expect(session.path.kind).toBe('direct-tcp'), patience);
    agent.allow('relay');
    await expect(session.open(ssh)).rejects.toMatchObject({ code: 'path-forbidden' });
    agent.proxy.cut();
    await vi.waitFor(() => expect(what()).toContain('resumed relay'), patience);
    const stream = await session.open(ssh);
    stream.write('x');
    await once(stream, 'data');
    expect(changes.at(-1)!.kind).toBe('relay');
  });

  it('sends everything directly if the relay is forbidden', async () => {
    const place = await satellite('one', 2, 2, 100);
    const agent = await agentAt([place]);
    agent.offer(agent.proxy.address);
    const ticket = world.ticket({ paths: ['direct-tcp'] });
    const careless = await world.open(place.place.url, { ticket: await ticket });
    await expect(careless.open(ssh)).rejects.toMatchObject({ code: 'path-forbidden' });

    const { session, what, changes } = await open([place], {}, { paths: ['direct-tcp'] }, ticket);
    expect(what()).toEqual(['opened relay', 'moved direct-tcp']);
    expect(changes[1]!.reason).toBe('wanted');
    const talking = talk(session);
    await vi.waitFor(() => expect(talking.bytes()).toBeGreaterThan(500_000), patience);
    // It resumes over the same kind of path only.
    agent.proxy.cut();
    await vi.waitFor(() => expect(what()).toContain('resumed direct-tcp'), patience);
    await talking.stop();
    expect(what()).not.toContain('resumed relay');
    expect(place.relay.stats().sessions).toBe(1);
  });

  it('reports why a required path is not available', async () => {
    const place = await satellite('one', 2, 2, 100);
    const agent = await agentAt([place]);
    const wanted = () => open([place], {}, { paths: ['direct-tcp'] });
    await expect(wanted()).rejects.toMatchObject({
      code: 'path-unavailable',
      detail: 'direct-tcp: the agent has no reachable address',
    });
    agent.offer('127.0.0.1:1', 'no.such.host.invalid:2');
    await expect(wanted()).rejects.toMatchObject({
      code: 'path-unavailable',
      detail: expect.stringMatching(/127\.0\.0\.1:1: connection refused.*no\.such\.host\.invalid:2/),
    });
    await vi.waitFor(() => expect(agent.registry.stats().sessions).toBe(0), patience);
  });
});
