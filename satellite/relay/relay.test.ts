import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { TunnelError } from '@cde/tunnel/errors.ts';
import { dialRelay, listenRelay } from '@cde/tunnel/paths/relay.ts';
import { dialedMessage, maxRelayMessage, relayPaths } from '@cde/tunnel/paths/relay-protocol.ts';
import { openSocket } from '@cde/tunnel/paths/socket.ts';
import type { Path } from '@cde/tunnel/pipe/path.ts';
import websocket from '@fastify/websocket';
import Fastify from 'fastify';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type WebSocket from 'ws';
import { settled } from '../../tests/kit/until.ts';
import { makeQueue, makeWorld, type World } from '../testing.ts';
import { relayPlugin } from './plugin.ts';
import { makeRelay } from './relay.ts';

let world: World;
beforeEach(async () => {
  world = await makeWorld();
});
afterEach(() => world.close());

const older = '019a0000-0000-7000-8000-000000000000';
const newer = '019b0000-0000-7000-8000-000000000000';

/** The relay itself, with plain sockets in place of an agent and a client. */
async function listen(url: string, buildId = newer): Promise<WebSocket> {
  const socket = await openSocket(url, relayPaths.listen, await world.listenToken({ buildId }), {});
  socket.resume();
  return socket;
}
async function dial(url: string): Promise<WebSocket> {
  const socket = await openSocket(url, relayPaths.dial, await world.ticket(), {});
  socket.resume();
  return socket;
}
const closeCode = (socket: WebSocket) => once(socket, 'close').then(([code]) => code as number);
const message = (socket: WebSocket) =>
  once(socket, 'message').then(([data, isBinary]) => [String(data), isBinary as boolean]);

describe('the relay', () => {
  it('pairs a client with a waiting agent and tells the agent first', async () => {
    const { url, relay } = await world.satellite();
    const agent = await listen(url);
    await vi.waitUntil(() => relay.stats().spares === 1);
    const messages = makeQueue<unknown[]>();
    agent.on('message', (data, isBinary) => messages.put([String(data), isBinary]));
    const client = await dial(url);
    client.send(Buffer.from('hello'));
    expect(await messages.next()).toEqual([dialedMessage, false]);
    expect(await messages.next()).toEqual(['hello', true]);
    agent.send(Buffer.from('hi'));
    expect(await message(client)).toEqual(['hi', true]);
    expect(relay.stats()).toMatchObject({ sessions: 1, spares: 0, bytesToAgents: 5, bytesToClients: 2 });
    client.close(1000);
    expect(await closeCode(agent)).toBe(1000);
    await vi.waitUntil(() => relay.stats().sessions === 0);
  });

  it('buffers what a client sends before the agent connects', async () => {
    const { url } = await world.satellite();
    const client = await dial(url);
    client.send(Buffer.from('early'));
    const agent = await openSocket(url, relayPaths.listen, await world.listenToken(), {});
    const messages = makeQueue<string>();
    agent.on('message', (data) => messages.put(String(data)));
    agent.resume();
    expect([await messages.next(), await messages.next()]).toEqual([dialedMessage, 'early']);
  });

  it('buffers a bounded amount for a client that does not read', async () => {
    const { url } = await world.satellite();
    const taken = makeQueue<Path>();
    const listener = listenRelay({ url, listenToken: () => world.listenToken(), onPath: taken.put });
    const client = await dialRelay({ url, ticket: await world.ticket() });
    client.pause();
    let received = 0;
    client.start({ data: (chunk) => (received += chunk.length), drain() {}, closed() {} });
    const agent = await taken.next();
    const chunk = Buffer.alloc(64 * 1024);
    let sent = 0;
    const more = () => {
      while (sent < 256 * 1024 * 1024) {
        sent += chunk.length;
        if (!agent.send(chunk)) return;
      }
    };
    agent.start({ data() {}, drain: more, closed() {} });
    more();
    await settled(() => sent);
    // Its own 1 MiB, the senders' 256 KiB, and the kernel's socket buffers, which are most of it.
    expect(sent).toBeLessThan(32 * 1024 * 1024);
    expect(received).toBeLessThan(1024 * 1024);
    client.resume();
    await vi.waitUntil(() => received === 256 * 1024 * 1024, { timeout: 20_000 });
    listener.close();
    client.close();
  });

  it('refuses before the upgrade, with an ApiError', async () => {
    const { url } = await world.satellite();
    const expired = await world.listenToken({ exp: Math.floor(Date.now() / 1000) - 60 });
    for (const [path, token, code] of [
      [relayPaths.listen, expired, 'listen-token-expired'],
      [relayPaths.listen, await world.ticket(), 'listen-token-invalid'],
      [relayPaths.listen, undefined, 'listen-token-invalid'],
      [relayPaths.dial, undefined, 'ticket-invalid'],
    ] as const) {
      const reply = await fetch(url + path, { headers: token ? { authorization: `Bearer ${token}` } : {} });
      expect(reply.status).toBe(401);
      expect(await reply.json()).toMatchObject({
        code,
        message: expect.any(String),
        hint: expect.any(String),
      });
      if (token) {
        await expect(openSocket(url, path, token, {})).rejects.toEqual(expect.objectContaining({ code }));
      }
    }
  });

  it('prefers the newest build and evicts older agents', async () => {
    const { url } = await world.satellite();
    const old = await listen(url, older);
    const sentAway = closeCode(old);
    const current = await listen(url, newer);
    expect(await sentAway).toBe(4409);
    expect(await closeCode(await listen(url, older))).toBe(4409);
    const told = message(current);
    await dial(url);
    expect(await told).toEqual([dialedMessage, false]);
  });

  it('enforces its limits for each workspace', async () => {
    const { url } = await world.satellite({
      limits: {
        sparesPerWorkspace: 1,
        waitingDialsPerWorkspace: 1,
        sessionsPerWorkspace: 1,
      },
    });
    const waiting = await dial(url);
    expect(await closeCode(await dial(url))).toBe(4429);
    await listen(url); // Taken by the waiting client.
    const spare = await listen(url);
    expect(await closeCode(await listen(url))).toBe(4429);
    expect(await closeCode(await dial(url))).toBe(4429); // One session is open.
    waiting.close(1000);
    spare.close(1000);
  });

  it('limits the clients of each user across all workspaces', async () => {
    const { url } = await world.satellite({ limits: { socketsPerUser: 2 } });
    const userId = randomUUID();
    const dialAs = async (claims: { userId: string; workspaceId?: string }) => {
      const socket = await openSocket(url, relayPaths.dial, await world.ticket(claims), {});
      socket.resume();
      return socket;
    };
    const [first] = [await dialAs({ userId }), await dialAs({ userId, workspaceId: randomUUID() })];
    expect(await closeCode(await dialAs({ userId }))).toBe(4429);
    await dialAs({ userId: randomUUID() });
    first.close(1000);
    await closeCode(first);
    await dialAs({ userId });
  });

  it('disconnects only clients that violate the protocol', async () => {
    const { url, relay } = await world.satellite();
    const chatty = await listen(url);
    chatty.send(Buffer.from('before anybody dialled'));
    expect(await closeCode(chatty)).toBe(4400);
    const text = await dial(url);
    text.send('text');
    expect(await closeCode(text)).toBe(4400);
    const flood = await dial(url);
    for (let i = 0; i < 20; i++) flood.send(Buffer.from('x'));
    expect(await closeCode(flood)).toBe(4400);

    const agent = await listen(url);
    await vi.waitUntil(() => relay.stats().spares === 1);
    const huge = await dial(url);
    const lost = closeCode(agent);
    huge.on('error', () => {});
    huge.send(Buffer.alloc(maxRelayMessage + 1));
    expect(await lost).toBe(4411);
    expect(relay.stats()).toMatchObject({ spares: 0, waitingDials: 0, sessions: 0 });
  });

  it('reports presence when an agent connects, and when it is gone for good', async () => {
    const presence = makeQueue<[string, boolean]>();
    const { url, relay } = await world.satellite({
      limits: { presenceGraceMs: 30 },
      onPresence: (id, connected) => presence.put([id, connected]),
    });
    expect(relay.isConnected(world.workspaceId)).toBe(false);
    const agent = world.agent(url);
    expect(await presence.next()).toEqual([world.workspaceId, true]);
    expect(relay.isConnected(world.workspaceId)).toBe(true);
    // Sessions come and go while the agent stays connected, so nothing is reported.
    for (let i = 0; i < 5; i++) (await world.open(url)).close();
    agent.listener.close();
    expect(await presence.next()).toEqual([world.workspaceId, false]);
    expect(relay.isConnected(world.workspaceId)).toBe(false);
    expect(relay.stats().workspaces).toBe(0);
  });

  it('drains: evicts waiting agents, keeps sessions, and finishes with the last of them', async () => {
    const { url, relay } = await world.satellite();
    const { states } = world.agent(url);
    expect((await states.next()).connected).toBe(true);
    const session = await world.open(url);
    await session.ready;
    let done = false;
    const drained = relay.drain().then(() => {
      done = true;
    });
    expect((await states.next()).reason).toMatchObject({ code: 'satellite-draining' });
    await expect(world.open(url)).rejects.toEqual(expect.objectContaining({ code: 'satellite-draining' }));
    expect(await session.ping()).toBeGreaterThan(0);
    expect(done).toBe(false);
    session.close();
    await drained;
  });

  it('can be registered on an instance that already has WebSockets', async () => {
    const app = Fastify();
    await app.register(websocket);
    await app.register(relayPlugin, { relay: makeRelay({ ticketKeys: () => [world.signer.publicKey] }) });
    const url = await app.listen({ port: 0, host: '127.0.0.1' });
    const agent = await listen(url);
    const told = closeCode(agent);
    await app.close();
    // The instance's own WebSocket plugin may close it first, without a code.
    expect([1005, 1012]).toContain(await told);
  });
});

describe('a listening agent', () => {
  it('backs off with jitter, resets after connecting, and requests a fresh token', async () => {
    const waits: number[] = [];
    const stale: boolean[] = [];
    const { url } = await world.satellite();
    const expired = await world.listenToken({ exp: Math.floor(Date.now() / 1000) - 60 });
    const enough = new Promise<void>((resolve) => {
      const listener = listenRelay({
        url,
        async listenToken(asked) {
          stale.push(asked.stale);
          return expired;
        },
        onPath() {},
        onState: () => expect.fail('it was never connected'),
        clock: {
          now: () => 0,
          random: () => 0.5,
          async sleep(ms) {
            waits.push(ms);
            if (waits.length < 8) return;
            listener.close();
            resolve();
          },
        },
      });
    });
    await enough;
    expect(waits).toEqual([250, 500, 1000, 2000, 4000, 7500, 7500, 7500]);
    expect(stale).toEqual([false, true, true, true, true, true, true, true]);
  });

  it('keeps the configured number of spares, and retries if it cannot get a token', async () => {
    const { url, relay } = await world.satellite();
    let asked = 0;
    const { listener } = world.agent(
      url,
      {},
      {
        spares: 3,
        async listenToken() {
          if (asked++ < 2) throw new TunnelError('satellite-unreachable', 'the server is unreachable');
          return world.listenToken();
        },
      },
    );
    await vi.waitUntil(() => relay.stats().spares === 3);
    const session = await world.open(url);
    await session.ready;
    await vi.waitUntil(() => relay.stats().spares === 3);
    expect(listener.connected).toBe(true);
  });
});
