import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { makeClient } from '@cde/api/client.ts';
import { terminalPath } from '@cde/api/satellite-terminals.ts';
import { silentLog } from '@cde/tunnel/log.ts';
import { clientFrame, floodSocket, opcodes, repeat, watchLoop } from '@cde/tunnel/network/testing-flood.ts';
import { relayPaths } from '@cde/tunnel/paths/relay-protocol.ts';
import { openSocket } from '@cde/tunnel/paths/socket.ts';
import websocket from '@fastify/websocket';
import Fastify, { type FastifyInstance } from 'fastify';
import { afterAll, beforeAll, beforeEach, expect, test, vi } from 'vitest';
import type WebSocket from 'ws';
import { serveTerminals } from '../terminals/terminals.ts';
import { makeWorld, type World } from '../testing.ts';
import { relayPlugin, websocketOptions } from './plugin.ts';
import { makeRelay, type Relay } from './relay.ts';

/** What agents, clients and browsers can do to a satellite over their WebSockets. */
const origin = 'https://cde.example.com';
let world: World;
let app: FastifyInstance;
let url: string;
let relay: Relay;
let probe: () => Promise<void>;
const over = new AbortController();
/** A slow server. */
const server = createServer(() => {}).listen(0, '127.0.0.1');

beforeAll(async () => {
  world = await makeWorld();
  app = Fastify({ forceCloseConnections: true });
  relay = makeRelay({ ticketKeys: [world.signer.publicKey], limits: { dialWaitMs: 60_000 } });
  await app.register(websocket, { options: websocketOptions });
  await app.register(relayPlugin, { relay });
  serveTerminals(app, {
    client: makeClient({ url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, token: 'x' }),
    isEnabled: () => true,
    dashboard: () => origin,
    isDraining: () => false,
    selfUrl: () => null,
    signal: over.signal,
    log: silentLog,
  });
  url = await app.listen({ port: 0, host: '127.0.0.1' });
  probe = async () => expect((await fetch(url + relayPaths.probe)).status).toBe(204);
});
beforeEach(() => probe());
afterAll(async () => {
  over.abort();
  await app.close();
  await world.close();
  server.closeAllConnections();
  server.close();
});

const megabytes = 2 * 1024 * 1024;
const bearer = (token: string) => ({ authorization: `Bearer ${token}` });

/** Measures the satellite's response time while `work` runs. */
async function meanwhile<T>(work: () => Promise<T>): Promise<T & { maxBlockedMs: number }> {
  let done = false;
  const healthy = (async () => {
    do await probe();
    while (!done);
  })();
  const loop = watchLoop();
  const result = await work();
  done = true;
  await healthy;
  return { ...result, ...loop.stop() };
}

test.each([
  ['bytes', clientFrame(opcodes.binary, 'x')],
  ['text', clientFrame(opcodes.text, 'x')],
  ['empty messages', clientFrame(opcodes.binary)],
  ['pongs', clientFrame(opcodes.pong)],
])('an agent that floods the satellite with %s before any client is there is cut off', async (_what, frame) => {
  const token = await world.listenToken();
  const ended = await meanwhile(() =>
    floodSocket(url + relayPaths.listen, bearer(token), repeat(frame, megabytes)),
  );
  expect(ended.close?.code).toBeOneOf([4400, 1008]);
  expect(ended.bytesRead).toBeLessThan(512 * 1024);
  expect(ended.maxBlockedMs).toBeLessThan(100);
});

test.each([
  ['bytes', clientFrame(opcodes.binary, 'x')],
  ['text', clientFrame(opcodes.text, 'x')],
  ['pings', clientFrame(opcodes.ping)],
])('a client that floods the satellite with %s before the agent is there is cut off', async (_what, frame) => {
  const ticket = await world.ticket({ workspaceId: randomUUID() });
  const ended = await meanwhile(() =>
    floodSocket(url + relayPaths.dial, bearer(ticket), repeat(frame, megabytes)),
  );
  expect(ended.bytesRead).toBeLessThan(512 * 1024);
  expect(ended.maxBlockedMs).toBeLessThan(100);
});

/** An agent that discards its input, paired with the next client. */
async function agent(): Promise<{ socket: WebSocket; received: () => number }> {
  const socket = await openSocket(url, relayPaths.listen, await world.listenToken(), {});
  let bytes = 0;
  socket.on('message', (data, isBinary) => {
    if (isBinary) bytes += (data as Buffer).length;
  });
  socket.resume();
  await vi.waitUntil(() => relay.stats().spares > 0);
  return { socket, received: () => bytes };
}

test('a client that sends its agent a byte at a time is slowed down, and loses nothing', async () => {
  const { socket, received } = await agent();
  // The last message closes the socket, so that the flood has an end.
  const frames = Buffer.concat([
    repeat(clientFrame(opcodes.binary, 'x'), 7 * 40_000),
    clientFrame(opcodes.text, 'end'),
  ]);
  const ticket = await world.ticket();
  const ended = await meanwhile(() => floodSocket(url + relayPaths.dial, bearer(ticket), frames));
  expect(ended.close).toEqual({ code: 1008, reason: 'not a message of a pipe' });
  await vi.waitUntil(() => received() === 40_000, { timeout: 20_000 });
  expect(ended.maxBlockedMs).toBeLessThan(100);
  socket.terminate();
});

test.each([
  ['text', clientFrame(opcodes.text, 'x'), 'not a message of a pipe'],
  ['empty messages', clientFrame(opcodes.binary), 'not a message of a pipe'],
  ['pongs', clientFrame(opcodes.pong), 'too many control frames'],
])('a client that floods its agent with %s is cut off', async (_what, frame, reason) => {
  const { socket } = await agent();
  const ticket = await world.ticket();
  const ended = await meanwhile(() =>
    floodSocket(url + relayPaths.dial, bearer(ticket), repeat(frame, megabytes)),
  );
  expect(ended.close).toEqual({ code: 1008, reason });
  expect(ended.bytesRead).toBeLessThan(512 * 1024);
  expect(ended.maxBlockedMs).toBeLessThan(100);
  socket.terminate();
});

test.each([
  ['nonsense', clientFrame(opcodes.text, 'x')],
  ['bytes', clientFrame(opcodes.binary, 'x')],
  ['pongs', clientFrame(opcodes.pong)],
])('a page that floods the satellite with %s instead of opening a terminal is cut off', async (_what, frame) => {
  const ended = await meanwhile(() => floodSocket(url + terminalPath, { origin }, repeat(frame, megabytes)));
  expect(ended.close?.code).toBe(1008);
  expect(ended.bytesRead).toBeLessThan(512 * 1024);
  expect(ended.maxBlockedMs).toBeLessThan(100);
});

test('a page that floods its terminal with keys while it opens is cut off', async () => {
  const open = clientFrame(opcodes.text, JSON.stringify({ type: 'open', code: 'c', cols: 80, rows: 24 }));
  const ended = await meanwhile(() =>
    floodSocket(
      url + terminalPath,
      { origin },
      Buffer.concat([open, repeat(clientFrame(opcodes.binary, 'x'), megabytes)]),
    ),
  );
  expect(ended.close).toEqual({ code: 1008, reason: 'too many messages' });
  expect(ended.bytesRead).toBeLessThan(512 * 1024);
  expect(ended.maxBlockedMs).toBeLessThan(100);
});
