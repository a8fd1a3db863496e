import { once } from 'node:events';
import { createServer, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { makeClient } from '@cde/api/client.ts';
import { silentLog } from '@cde/tunnel/log.ts';
import websocket from '@fastify/websocket';
import Fastify, { type FastifyInstance } from 'fastify';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { WebSocket } from 'ws';
import { websocketOptions } from '../relay/plugin.ts';
import { serveTerminals, type Terminals } from './terminals.ts';

/** A satellite's limits while the server is slow to respond. tests/terminals.test.ts covers terminals with real shells. */
const origin = 'https://cde.example.com';
let server: Server;
let asked: ServerResponse[];
let app: FastifyInstance;
let url: string;
let terminals: Terminals;
const over = new AbortController();
const limits = { terminals: 2, pending: 500, firstMessageTimeoutMs: 60_000 };

beforeEach(async () => {
  asked = [];
  server = createServer((_request, response) => asked.push(response)).listen(0, '127.0.0.1');
  await once(server, 'listening');
  app = Fastify();
  await app.register(websocket, { options: websocketOptions });
  terminals = serveTerminals(app, {
    client: makeClient({ url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, token: 'x' }),
    isEnabled: () => true,
    dashboard: () => origin,
    isDraining: () => false,
    selfUrl: () => null,
    signal: over.signal,
    log: silentLog,
    limits,
  });
  url = (await app.listen({ host: '127.0.0.1', port: 0 })).replace('http', 'ws');
});
afterEach(async () => {
  await app.close();
  server.closeAllConnections();
  server.close();
});

function connect() {
  const socket = new WebSocket(`${url}/terminal`, { origin });
  const messages: { message: string }[] = [];
  socket.on('message', (data) => messages.push(JSON.parse(String(data))));
  const closed = once(socket, 'close').then(([code, reason]) => ({ code, reason: String(reason), messages }));
  return { socket, closed };
}
async function open() {
  const made = connect();
  await once(made.socket, 'open');
  made.socket.send(JSON.stringify({ type: 'open', code: 'a code', cols: 80, rows: 24 }));
  return made;
}
/** Waits until the server has received `count` requests. */
async function requests(count: number): Promise<void> {
  while (asked.length < count) await once(server, 'request');
}

test('rejects a terminal above the limit before the upgrade', async () => {
  const first = await open();
  await open();
  await requests(2);
  const rejected = connect();
  rejected.socket.on('error', () => {});
  const [, response] = await once(rejected.socket, 'unexpected-response');
  let body = '';
  for await (const chunk of response) body += chunk;
  expect(response.statusCode).toBe(503);
  expect(JSON.parse(body)).toMatchObject({ code: 'server-busy', detail: 'It already serves 2.' });

  first.socket.close();
  await first.closed;
  await open();
  await requests(3);
});

test('a rejected terminal does not count against the limit while its socket stays open', async () => {
  const rejected: WebSocket[] = [];
  for (const at of [0, 1]) {
    const { socket } = await open();
    rejected.push(socket);
    await requests(at + 1);
    socket.pause();
    asked[at]!.writeHead(403, { 'content-type': 'application/json' });
    asked[at]!.end(JSON.stringify({ code: 'forbidden', message: 'No.' }));
  }
  await vi.waitFor(async () => {
    const socket = new WebSocket(`${url}/terminal`, { origin });
    socket.on('error', () => {});
    const opened = new Promise((resolve) => {
      socket.once('open', () => resolve(true));
      socket.once('close', () => resolve(false));
    });
    expect(await opened).toBe(true);
  });
  for (const socket of rejected) socket.terminate();
});

test('rejects a terminal above the limit after the upgrade', async () => {
  const made = [connect(), connect(), connect()];
  await Promise.all(made.map(({ socket }) => once(socket, 'open')));
  for (const { socket } of made)
    socket.send(JSON.stringify({ type: 'open', code: 'a code', cols: 80, rows: 24 }));
  const { code, messages } = await Promise.race(made.map(({ closed }) => closed));
  expect(code).toBe(1008);
  expect(messages).toEqual([
    { type: 'exit', code: null, message: expect.stringContaining('cannot open more terminals') },
  ]);
});

test('drops the oldest silent socket to make room for a new one', async () => {
  limits.pending = 3;
  try {
    const silent = [];
    for (let at = 0; at < 5; at++) {
      const made = connect();
      await once(made.socket, 'open');
      silent.push(made);
    }
    expect(await Promise.all(silent.slice(0, 2).map(({ closed }) => closed))).toMatchObject([
      { code: 1006 },
      { code: 1006 },
    ]);
    expect(silent.slice(2).map(({ socket }) => socket.readyState)).toEqual([1, 1, 1]);
    await open();
    await requests(1);
  } finally {
    limits.pending = 500;
  }
});

test('rejects a socket without a first message in time', async () => {
  limits.firstMessageTimeoutMs = 50;
  const { code, messages } = await connect().closed;
  limits.firstMessageTimeoutMs = 60_000;
  expect(code).toBe(1008);
  expect(messages[0]!.message).toContain('did not say in time');
});

test('passes the error of the server on to the browser, but not that of another program', async () => {
  const told = await open();
  await requests(1);
  asked[0]!.writeHead(409, { 'content-type': 'application/json' });
  asked[0]!.end(
    JSON.stringify({ code: 'workspace-not-running', message: 'It is stopped.', hint: 'Start it.' }),
  );
  expect((await told.closed).messages).toEqual([
    { type: 'exit', code: null, message: 'It is stopped. Start it.' },
  ]);
  const lost = await open();
  await requests(2);
  asked[1]!.writeHead(502).end('<h1>Bad gateway</h1>');
  expect((await lost.closed).messages[0]!.message).toContain("in a form that is not cde's");
});

test('evicts all terminals, including pending ones', async () => {
  const some = [await open(), connect()];
  await once(some[1]!.socket, 'open');
  await requests(1);
  terminals.evictAll('Go elsewhere.');
  for (const { closed } of some)
    expect(await closed).toMatchObject({ code: 1012, reason: 'Go elsewhere.', messages: [] });
});
