import { createHash, generateKeyPairSync, type Hash, randomBytes, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import type { Duplex } from 'node:stream';
import { finished } from 'node:stream/promises';
import { streamWindow } from '@cde/tunnel/auth/handshake.ts';
import { makeClientKey } from '@cde/tunnel/auth/keys.ts';
import { makeTicketSigner } from '@cde/tunnel/auth/ticket.ts';
import type { SessionOptions } from '@cde/tunnel/session/session.ts';
import { connectTarget } from '@cde/tunnel/streams/targets.ts';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { settled, until } from '../../tests/kit/until.ts';
import { fastClock, makeWorld, type World } from '../testing.ts';

let world: World;
beforeEach(async () => {
  world = await makeWorld();
});
afterEach(() => world.close());

const ssh = { kind: 'ssh' } as const;
const code = (expected: string) => expect.objectContaining({ code: expected });

async function send(stream: Duplex, bytes: number): Promise<string> {
  const hash = createHash('sha256');
  const block = randomBytes(1024 * 1024);
  for (let sent = 0; sent < bytes; sent += block.length) {
    block.writeUInt32BE(sent, 0);
    const chunk = Buffer.from(block);
    hash.update(chunk);
    if (!stream.write(chunk)) await once(stream, 'drain');
  }
  stream.end();
  return hash.digest('hex');
}

async function receive(stream: Duplex): Promise<string> {
  const hash: Hash = createHash('sha256');
  stream.on('data', (chunk: Buffer) => hash.update(chunk));
  await once(stream, 'end');
  return hash.digest('hex');
}

async function echo(stream: Duplex, text: string): Promise<string> {
  stream.end(text);
  let got = '';
  for await (const chunk of stream.setEncoding('utf8')) got += chunk;
  return got;
}

describe('a session through a satellite', () => {
  it('carries 64 MiB both ways at once, byte for byte', async () => {
    const { url, relay } = await world.satellite();
    world.agent(url);
    const session = await world.open(url);
    const stream = await session.open(ssh);
    const [sent, received] = await Promise.all([send(stream, 64 * 1024 * 1024), receive(stream)]);
    expect(received).toBe(sent);
    expect(relay.stats().bytesToClients).toBeGreaterThan(64 * 1024 * 1024);
  });

  it('serves many streams and several sessions at once', async () => {
    const { url } = await world.satellite();
    world.agent(url);
    await Promise.all(
      Array.from({ length: 5 }, async (_, each) => {
        const session = await world.open(url);
        await Promise.all(
          Array.from({ length: 40 }, async (_, index) => {
            const text = `${each}.${index} `.repeat(500);
            expect(await echo(await session.open(ssh), text)).toBe(text);
          }),
        );
      }),
    );
  });

  it('stops the sender at a full window when the reader pauses', async () => {
    const { url } = await world.satellite();
    let written = 0;
    const block = Buffer.alloc(64 * 1024);
    world.agent(url, {
      onStream(_target, stream) {
        stream.on('error', () => {});
        const more = () => {
          while (!stream.destroyed) {
            written += block.length;
            if (!stream.write(block)) return;
          }
        };
        stream.on('drain', more);
        more();
        return undefined;
      },
    });
    const session = await world.open(url);
    const stream = await session.open(ssh);
    await vi.waitUntil(() => written >= streamWindow, { timeout: 20_000 });
    // It has stopped, while other streams continue.
    await settled(() => written);
    await session.ping();
    expect(written).toBeLessThan(streamWindow + 1024 * 1024);
    stream.on('data', () => {});
    await vi.waitUntil(() => written > 2 * streamWindow, { timeout: 20_000 });
    stream.destroy();
  });

  it('tells both ends when the satellite restarts', async () => {
    const satellite = await world.satellite();
    const agent = world.agent(satellite.url);
    const session = await world.open(satellite.url);
    const stream = await session.open(ssh);
    const broken = finished(stream.resume()).catch((error) => error);
    await satellite.close();
    expect((await session.closed).reason).toBe('satellite-restarted');
    expect(await broken).toEqual(code('satellite-restarted'));
    expect((await agent.sessions[0]!.closed).reason).toBe('satellite-restarted');
  });

  it('works again after the satellite is back, because the agent reconnects', async () => {
    const first = await world.satellite();
    const { states } = world.agent(first.url);
    expect(await states.next()).toMatchObject({ connected: true });
    await first.close();
    expect(await states.next()).toMatchObject({ connected: false, reason: code('satellite-restarted') });
    await world.satellite({ port: first.port });
    expect(await states.next()).toMatchObject({ connected: true });
    const session = await world.open(first.url);
    expect(await echo(await session.open(ssh), 'again')).toBe('again');
  });

  it('reports which connection broke', async () => {
    const { url, port } = await world.satellite();
    const wifi = await world.proxy(port);
    const agent = world.agent(url);
    const session = await world.open(wifi.url);
    await session.ready;
    wifi.cut();
    expect((await session.closed).reason).toBe('satellite-lost');
    expect((await agent.sessions[0]!.closed).reason).toBe('client-lost');
    agent.listener.close();

    const other = await world.satellite();
    const node = await world.proxy(other.port);
    const far = world.agent(node.url);
    const victim = await world.open(other.url);
    await victim.ready;
    node.cut();
    expect((await victim.closed).reason).toBe('agent-lost');
    expect((await far.sessions[0]!.closed).reason).toBe('satellite-lost');
  });

  it('detects a network that drops everything', async () => {
    const times = { heartbeatMs: 20, deadAfterMs: 100 };
    const { url, port } = await world.satellite(times);
    const wifi = await world.proxy(port);
    const agent = world.agent(url, {}, times);
    const session = await world.open(wifi.url, times);
    await session.ready;
    wifi.swallow();
    expect((await session.closed).reason).toBe('satellite-lost');
    expect((await agent.sessions[0]!.closed).reason).toBe('client-lost');
  });

  it('stays open while nothing is sent, and while one end does not read', async () => {
    const times = { heartbeatMs: 10, deadAfterMs: 60 };
    const { url, port } = await world.satellite(times);
    const endless = Buffer.alloc(1024 * 1024);
    world.agent(
      url,
      {
        onStream(_target, stream) {
          stream.on('error', () => {});
          stream.on('drain', () => stream.write(endless));
          stream.write(endless);
          return undefined;
        },
      },
      times,
    );
    const way = await world.proxy(port);
    const session = await world.open(way.url, times);
    const stream = await session.open(ssh);
    // Heartbeats for several times the timeout, first with a full window, then without traffic.
    const heartbeats = async () => {
      const before = way.heartbeats();
      await until(() => way.heartbeats() > before + 200, 'heartbeats');
    };
    await heartbeats();
    expect(await session.ping()).toBeGreaterThan(0);
    stream.destroy();
    await heartbeats();
    expect(await session.ping()).toBeGreaterThan(0);
  });
});

describe('a resumable session', () => {
  /** Opens one that gets fresh tickets from the world's server. */
  async function lasting(url: string, more: Partial<SessionOptions> = {}) {
    const told: string[] = [];
    const session = await world.open(url, {
      clock: fastClock,
      onPath: (state, reason) => told.push(`${state} ${reason.code}`),
      renewTicket: async () => ({
        ticket: await world.ticket(),
        agentKey: world.agentKey,
        satellites: [{ name: url, url }],
      }),
      ...more,
    });
    return { session, told };
  }

  it('survives a restart of its satellite in the middle of 64 MiB each way', async () => {
    const first = await world.satellite();
    world.agent(first.url);
    const { session, told } = await lasting(first.url);
    const stream = await session.open(ssh);
    let got = 0;
    stream.on('data', (chunk: Buffer) => {
      got += chunk.length;
    });
    const both = Promise.all([send(stream, 64 * 1024 * 1024), receive(stream)]);
    await vi.waitUntil(() => got > 8 * 1024 * 1024, { timeout: 20_000 });
    await first.close();
    await world.satellite({ port: first.port });
    const [sent, received] = await both;
    expect(received).toBe(sent);
    expect(told).toEqual(['lost satellite-restarted', 'resumed satellite-restarted']);
  });

  it('survives the loss of either connection, and a network that drops everything', async () => {
    const times = { heartbeatMs: 20, deadAfterMs: 100 };
    const { port } = await world.satellite(times);
    const wifi = await world.proxy(port);
    const node = await world.proxy(port);
    world.agent(node.url, {}, times);
    const { session, told } = await lasting(wifi.url, times);
    const stream = await session.open(ssh);
    const say = async (text: string) => {
      const answer = once(stream, 'data');
      stream.write(text);
      return String((await answer)[0]);
    };
    expect(await say('1')).toBe('1');
    wifi.cut();
    expect(await say('2')).toBe('2');
    node.cut();
    expect(await say('3')).toBe('3');
    wifi.swallow();
    expect(await say('4')).toBe('4');
    expect(told).toEqual([
      'lost satellite-lost',
      'resumed satellite-lost',
      'lost agent-lost',
      'resumed agent-lost',
      'lost satellite-lost',
      'resumed satellite-lost',
    ]);
  });

  it('ends at both ends when the user loses access', async () => {
    const { url, relay } = await world.satellite();
    const agent = world.agent(url);
    const { session, told } = await lasting(url);
    await session.ready;
    for (const user of relay.users()) relay.endUser(user);
    expect((await session.closed).reason).toBe('access-ended');
    expect((await agent.sessions[0]!.closed).reason).toBe('access-ended');
    expect(agent.registry.stats()).toMatchObject({ sessions: 0, waiting: 0 });
    expect(told).toEqual([]);
  });

  it('requests a fresh ticket if the satellite rejects the old one', async () => {
    const successor = makeTicketSigner(generateKeyPairSync('ed25519').privateKey);
    let keys = [world.signer.publicKey];
    const { url, port, relay } = await world.satellite({ ticketKeys: () => keys });
    const wifi = await world.proxy(port);
    world.agent(url);
    let renewed = 0;
    const { session } = await lasting(wifi.url, {
      async renewTicket() {
        renewed++;
        const ticket = await successor.signTicket({
          workspaceId: world.workspaceId,
          workspace: 'ada/hello',
          userId: randomUUID(),
          username: 'ada',
          agentKey: world.agentKey,
          clientKey: makeClientKey().publicKey,
          satellites: ['here'],
          jti: randomUUID(),
          exp: Math.floor(Date.now() / 1000) + 60,
        });
        return { ticket, agentKey: world.agentKey, satellites: [{ name: 'here', url }] };
      },
    });
    const stream = await session.open(ssh);
    await session.ready;
    await vi.waitUntil(() => relay.stats().spares === 1);
    keys = [successor.publicKey];
    wifi.cut();
    expect(await echo(stream, 'again')).toBe('again');
    expect(renewed).toBe(1);
  });
});

describe('a stream', () => {
  it('that ends as it is opened also ends at the agent', async () => {
    const server = createServer({ allowHalfOpen: true }, (socket) => socket.pipe(socket));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { url } = await world.satellite();
    world.agent(url, { onStream: (target) => (target.kind === 'tcp' ? connectTarget(target) : undefined) });
    const session = await world.open(url);
    const { port } = server.address() as AddressInfo;
    const stream = await session.open({ kind: 'tcp', host: '127.0.0.1', port }, { eager: true });
    expect(await echo(stream, '')).toBe('');
    server.close();
    await once(server, 'close');
  });
});

describe('opening a session', () => {
  it('waits for an agent that is about to connect, and reports if none does', async () => {
    const { url } = await world.satellite();
    const opening = world.open(url);
    world.agent(url);
    const session = await opening;
    expect(await echo(await session.open(ssh), 'at last')).toBe('at last');

    const lonely = await world.satellite({ limits: { dialWaitMs: 30 } });
    await expect(world.open(lonely.url)).rejects.toEqual(code('agent-not-connected'));
  });

  it('tries the next satellite if one does not serve', async () => {
    const nobody = await world.satellite({ limits: { dialWaitMs: 30 } });
    const draining = await world.satellite();
    await draining.relay.drain();
    const good = await world.satellite();
    world.agent(good.url);
    const dead = 'http://127.0.0.1:1';
    const session = await world.open([dead, 'nonsense', draining.url, nobody.url, good.url]);
    expect(session.path.via).toBe(good.url);
    await expect(world.open([dead])).rejects.toEqual(code('satellite-unreachable'));
    await expect(world.open([draining.url])).rejects.toEqual(code('satellite-draining'));
    await expect(world.open([])).rejects.toEqual(code('satellite-unreachable'));
  });

  it('is rejected by the satellite without a valid ticket', async () => {
    const { url } = await world.satellite();
    world.agent(url);
    const past = Math.floor(Date.now() / 1000) - 60;
    await expect(world.open(url, { ticket: await world.ticket({ exp: past }) })).rejects.toEqual(
      code('ticket-expired'),
    );
    await expect(world.open(url, { ticket: await world.listenToken() })).rejects.toEqual(
      code('ticket-invalid'),
    );
    await expect(world.open(url, { ticket: 'forged' })).rejects.toEqual(code('ticket-invalid'));
  });

  it('can be cancelled while it waits', async () => {
    const { url } = await world.satellite();
    const stop = new AbortController();
    const opening = world.open(url, { signal: stop.signal });
    setImmediate(() => stop.abort());
    await expect(opening).rejects.toEqual(code('session-aborted'));
  });
});
