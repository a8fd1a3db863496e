import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { makeCertificate } from '@cde/tunnel/auth/certificate.ts';
import { makeClientKey } from '@cde/tunnel/auth/keys.ts';
import { makeTicketSigner, type TicketClaims } from '@cde/tunnel/auth/ticket.ts';
import type { Clock } from '@cde/tunnel/clock.ts';
import type { TunnelError } from '@cde/tunnel/errors.ts';
import { type ListenOptions, listenRelay } from '@cde/tunnel/paths/relay.ts';
import type { HostedSession } from '@cde/tunnel/session/host.ts';
import { makeSessionRegistry, type SessionRegistryOptions } from '@cde/tunnel/session/registry.ts';
import { openSession, type Session, type SessionOptions } from '@cde/tunnel/session/session.ts';
import Fastify from 'fastify';
import { relayPlugin } from './relay/plugin.ts';
import { makeRelay, type Relay, type RelayOptions } from './relay/relay.ts';

/** With the frame of a WebSocket. Data of a session is sent in larger pieces. */
const maxHeartbeatBytes = 64;

/** For tests: real satellites, agents and clients on loopback, all closed by `close`. */
export async function makeWorld() {
  const signer = makeTicketSigner(generateKeyPairSync('ed25519').privateKey);
  const certificate = await makeCertificate();
  const clientKey = makeClientKey();
  const workspaceId = randomUUID();
  const buildId = randomUUID();
  const closers: (() => unknown)[] = [];
  const inAMinute = () => Math.floor(Date.now() / 1000) + 60;

  /** A satellite on `port`, or on a free one. */
  async function satellite(
    options: Partial<RelayOptions> & { port?: number } = {},
  ): Promise<{ url: string; port: number; relay: Relay; close(): Promise<void> }> {
    const app = Fastify({ forceCloseConnections: true });
    const relay = makeRelay({
      ticketKeys: [signer.publicKey],
      ...options,
      // On a busy machine an agent may take longer to listen than the five seconds that clients wait.
      limits: { dialWaitMs: 60_000, ...options.limits },
    });
    await app.register(relayPlugin, { relay });
    const url = await app.listen({ port: options.port ?? 0, host: '127.0.0.1' });
    closers.push(() => app.close());
    return { url, port: Number(new URL(url).port), relay, close: () => app.close() };
  }

  const listenToken = (changes: { buildId?: string; exp?: number } = {}) =>
    signer.signListenToken({ workspaceId, buildId, exp: inAMinute(), ...changes });

  /** An agent listening at a satellite. Its streams echo unless `host.onStream` is given. */
  function agent(
    url: string,
    host: Partial<SessionRegistryOptions> = {},
    listen: Partial<ListenOptions> = {},
  ) {
    const sessions: HostedSession[] = [];
    const states = makeQueue<{ connected: boolean; reason: TunnelError | null }>();
    const registry = makeSessionRegistry({
      tlsKey: certificate.key,
      tlsCert: certificate.cert,
      workspaceId,
      ticketKeys: [signer.publicKey],
      agentKey: certificate.fingerprint,
      onStream: (_target, stream) => {
        stream.pipe(stream);
        return undefined;
      },
      onSession: (session) => sessions.push(session),
      ...host,
    });
    const listener = listenRelay({
      url,
      listenToken: () => listenToken(),
      onPath: (path) => registry.accept(path),
      onState: (connected, reason) => states.put({ connected, reason }),
      clock: fastClock,
      ...listen,
    });
    closers.push(() => {
      listener.close();
      registry.close();
    });
    return { listener, registry, sessions, states };
  }

  const ticket = (changes: Partial<TicketClaims> = {}) =>
    signer.signTicket({
      workspaceId,
      workspace: 'ada/hello',
      userId: randomUUID(),
      username: 'ada',
      agentKey: certificate.fingerprint,
      clientKey: clientKey.publicKey,
      satellites: ['embedded'],
      jti: randomUUID(),
      exp: inAMinute(),
      ...changes,
    });

  async function open(urls: string | string[], changes: Partial<SessionOptions> = {}): Promise<Session> {
    const session = await openSession({
      ticket: await ticket(),
      agentKey: certificate.fingerprint,
      satellites: [urls].flat().map((url) => ({ name: url, url })),
      clientPrivateKey: clientKey.privateKey,
      ...changes,
    });
    closers.push(() => session.close());
    return session;
  }

  /**
   * A TCP proxy in front of a satellite or an agent that can cut connections, drop their data, or delay it by `delayMs` in
   * each direction.
   */
  async function proxy(port: number, delayMs = 0) {
    const sockets = new Set<Socket>();
    const delay = { ms: delayMs };
    let small = 0;
    const server = createServer({ noDelay: true }, (client) => {
      const upstream = connect({ port, host: '127.0.0.1', noDelay: true });
      for (const [one, other] of [
        [client, upstream],
        [upstream, client],
      ] as const) {
        sockets.add(one);
        one.on('data', ({ length }) => {
          if (length <= maxHeartbeatBytes) small++;
        });
        if (delay.ms === 0) one.pipe(other);
        else {
          one.on('data', (chunk) => setTimeout(() => other.writable && other.write(chunk), delay.ms));
          one.on('end', () => setTimeout(() => other.end(), delay.ms));
        }
        one.on('error', () => {});
        one.once('close', () => {
          sockets.delete(one);
          other.destroy();
        });
      }
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const cut = () => {
      for (const socket of sockets) socket.resetAndDestroy();
    };
    closers.push(() => {
      cut();
      server.close();
    });
    const local = (server.address() as AddressInfo).port;
    return {
      url: `http://127.0.0.1:${local}`,
      address: `127.0.0.1:${local}`,
      /** Applies to new connections. */
      delay,
      /** Arrivals of so few bytes that they can only be heartbeats, of both ends, so far. */
      heartbeats: () => small,
      /** Accepts no more connections. */
      shut: () => server.close(),
      cut,
      /** Silently drops all data from now on. */
      swallow() {
        for (const socket of sockets) {
          socket.unpipe();
          socket.removeAllListeners('data');
          socket.resume();
        }
      },
    };
  }

  return {
    signer,
    workspaceId,
    agentKey: certificate.fingerprint,
    satellite,
    agent,
    open,
    proxy,
    ticket,
    listenToken,
    async close() {
      for (const close of closers.reverse()) await close();
    },
  };
}
export type World = Awaited<ReturnType<typeof makeWorld>>;

/** Sleeps for a hundredth of the time. */
export const fastClock: Clock = {
  now: () => performance.now(),
  random: () => 1,
  sleep: (ms) => new Promise((resolve) => setTimeout(resolve, ms / 100)),
};

/** A queue whose `next` waits for a value. */
export function makeQueue<T>() {
  const values: T[] = [];
  const takers: ((value: T) => void)[] = [];
  return {
    put(value: T) {
      const taker = takers.shift();
      if (taker) taker(value);
      else values.push(value);
    },
    next(): Promise<T> {
      const value = values.shift();
      return value === undefined ? new Promise((resolve) => takers.push(resolve)) : Promise.resolve(value);
    },
  };
}
