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

/** What a satellite does with browsers while the server takes its time. tests/terminals.test.ts has the rest, with shells. */
const origin = 'https://cde.example.com';
let server: Server;
let asked: ServerResponse[];
let app: FastifyInstance;
let url: string;
let terminals: Terminals;
const over = new AbortController();
const limits = { terminals: 2, waiting: 500, sayWithinMs: 60_000 };

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
  const said: { message: string }[] = [];
  socket.on('message', (data) => said.push(JSON.parse(String(data))));
  const closed = once(socket, 'close').then(([code, reason]) => ({ code, reason: String(reason), said }));
  return { socket, closed };
}
async function open() {
  const made = connect();
  await once(made.socket, 'open');
  made.socket.send(JSON.stringify({ type: 'open', code: 'a code', cols: 80, rows: 24 }));
  return made;
}
/** Waits for so many questions to the server. */
async function questions(count: number): Promise<void> {
  while (asked.length < count) await once(server, 'request');
}

test('it serves so many at once, and says so to the next', async () => {
  const first = await open();
  await open();
  await questions(2);
  const refused = connect();
  refused.socket.on('error', () => {});
  const [, response] = await once(refused.socket, 'unexpected-response');
  let body = '';
  for await (const chunk of response) body += chunk;
  expect(response.statusCode).toBe(503);
  expect(JSON.parse(body)).toMatchObject({ code: 'server-busy', detail: 'It serves 2 already.' });

  first.socket.close();
  await first.closed;
  await open();
  await questions(3);
});

test('who was refused takes no place, though they do not hang up', async () => {
  const refused: WebSocket[] = [];
  for (const at of [0, 1]) {
    const { socket } = await open();
    refused.push(socket);
    await questions(at + 1);
    socket.pause();
    asked[at]!.writeHead(403, { 'content-type': 'application/json' });
    asked[at]!.end(JSON.stringify({ code: 'forbidden', message: 'No.' }));
  }
  await vi.waitFor(async () => {
    const socket = new WebSocket(`${url}/terminal`, { origin });
    socket.on('error', () => {});
    const came = new Promise((resolve) => {
      socket.once('open', () => resolve(true));
      socket.once('close', () => resolve(false));
    });
    expect(await came).toBe(true);
  });
  for (const socket of refused) socket.terminate();
});

test('those that came in while there was room are told too', async () => {
  const made = [connect(), connect(), connect()];
  await Promise.all(made.map(({ socket }) => once(socket, 'open')));
  for (const { socket } of made)
    socket.send(JSON.stringify({ type: 'open', code: 'a code', cols: 80, rows: 24 }));
  const { code, said } = await Promise.race(made.map(({ closed }) => closed));
  expect(code).toBe(1008);
  expect(said).toEqual([
    { type: 'exit', code: null, message: expect.stringContaining('can open no more terminals') },
  ]);
});

test('those who say nothing keep nobody out: the oldest of too many goes', async () => {
  limits.waiting = 3;
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
    await questions(1);
  } finally {
    limits.waiting = 500;
  }
});

test('who says nothing is sent away', async () => {
  limits.sayWithinMs = 50;
  const { code, said } = await connect().closed;
  limits.sayWithinMs = 60_000;
  expect(code).toBe(1008);
  expect(said[0]!.message).toContain('Nobody has said');
});

test('the words of the server reach the browser; those of another program do not', async () => {
  const told = await open();
  await questions(1);
  asked[0]!.writeHead(409, { 'content-type': 'application/json' });
  asked[0]!.end(
    JSON.stringify({ code: 'workspace-not-running', message: 'It is stopped.', hint: 'Start it.' }),
  );
  expect((await told.closed).said).toEqual([
    { type: 'exit', code: null, message: 'It is stopped. Start it.' },
  ]);
  const lost = await open();
  await questions(2);
  asked[1]!.writeHead(502).end('<h1>Bad gateway</h1>');
  expect((await lost.closed).said[0]!.message).toContain("in a form that is not cde's");
});

test('all are sent away at once, those too that still wait', async () => {
  const some = [await open(), connect()];
  await once(some[1]!.socket, 'open');
  await questions(1);
  terminals.evictAll('Go elsewhere.');
  for (const { closed } of some)
    expect(await closed).toMatchObject({ code: 1012, reason: 'Go elsewhere.', said: [] });
});
