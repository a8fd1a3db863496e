import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TerminalRoutes } from '@cde/api/satellite-terminals.ts';
import { type Satellite, startSatellite } from '@cde/satellite/program.ts';
import { readSettings } from '@cde/satellite/settings.ts';
import { readConfig } from '@cde/server/config.ts';
import { type ControlPlane, startControlPlane } from '@cde/server/control-plane.ts';
import { makeLog } from '@cde/server/log.ts';
import { addUser, makeTestDatabase, type TestDatabase, type TestUser } from '@cde/server/testing.ts';
import { makeClientKey } from '@cde/tunnel/auth/keys.ts';
import { clientFrame, floodSocket, opcodes, repeat, watchLoop } from '@cde/tunnel/network/testing-flood.ts';
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test } from 'vitest';
import { settled, until } from './kit/until.ts';

/**
 * Floods through the whole chain: the server and a satellite run in this process, where the time that they block is
 * measured; the workspace's agent is a process of its own.
 */
let folder: string;
let database: TestDatabase;
let plane: ControlPlane;
let satellite: Satellite;
let owner: TestUser;
let session: Record<string, string>;

const megabytes = 2 * 1024 * 1024;

/** A program that accepts every upgrade. What it does with the rest depends on the path. */
const program = {
  port: 0,
  server: null as Server | null,
  /** Bytes that it has read after the upgrade on `/discard`. */
  read: 0,
  /** Bytes that it has written on `/pour`. */
  written: 0,
};

function serveProgram(socket: Socket): void {
  socket.on('error', () => {});
  let head = '';
  socket.on('data', function onHead(chunk: Buffer) {
    head += chunk.toString('latin1');
    if (!head.includes('\r\n\r\n')) return;
    socket.off('data', onHead);
    socket.write('HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n');
    const path = head.split(' ')[1];
    if (path === '/stuck') return void socket.pause();
    if (path === '/pour') {
      const piece = Buffer.alloc(64 * 1024, 'x');
      const more = () => {
        do program.written += piece.length;
        while (socket.write(piece));
      };
      socket.on('drain', more);
      return more();
    }
    program.read = 0;
    socket.on('data', (data: Buffer) => {
      program.read += data.length;
      if (program.read >= megabytes) socket.end();
    });
  });
}

async function api(method: string, path: string, body?: unknown, headers: Record<string, string> = {}) {
  const reply = await fetch(`${plane.url}/api/v1${path}`, {
    method,
    headers: {
      authorization: `Bearer ${owner.token}`,
      ...(body !== undefined && { 'content-type': 'application/json' }),
      ...headers,
    },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  });
  const text = await reply.text();
  return { status: reply.status, headers: reply.headers, body: text === '' ? undefined : JSON.parse(text) };
}

const isRunning = ({ body }: { body: { status: string; agent: { connected: boolean } } }) =>
  body.status === 'running' && body.agent.connected;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cde-floods-'));
  database = await makeTestDatabase();
  plane = await startControlPlane({
    config: readConfig([], {
      CDE_DATA_DIR: folder,
      CDE_LISTEN: '127.0.0.1:0',
      // The program of this test is then the workspace's own.
      CDE_ISOLATION: 'none',
    }),
    database,
    log: makeLog('silent'),
  });
  owner = await addUser(database, 'ada', 'owner');
  program.server = createServer(serveProgram).listen(0, '127.0.0.1');
  await once(program.server, 'listening');
  program.port = (program.server.address() as { port: number }).port;

  await api('POST', '/templates', { files: { 'template.yaml': 'name: small\nprovider: local\n' } });
  const { body: added } = await api('POST', '/satellites', { name: 'east' });
  await api('PUT', '/satellites/east/web', { web: { portHost: '*.east.localhost' } });
  satellite = await startSatellite({
    settings: readSettings(['--server', plane.url, '--token', added.token, '--listen', '127.0.0.1:0'], {
      CDE_LOG_LEVEL: 'silent',
    }),
    version: '1.2.3',
    onRejected() {},
  });
  expect((await api('POST', '/workspaces', { name: 'hello', template: 'small' })).status).toBe(201);
  await until(() => api('GET', '/workspaces/hello'), isRunning);
  await api('PUT', `/workspaces/hello/ports/${program.port}`, { level: 'public' });

  const link = await api('POST', '/auth/one-time-links');
  const code = new URL(link.body.url).hash.slice('#code='.length);
  const signedIn = await api('POST', '/auth/one-time', { code }, { authorization: '', origin: plane.url });
  session = {
    cookie: signedIn.headers.getSetCookie()[0]!.split(';')[0]!,
    'x-cde-session-key': signedIn.body.sessionKey,
    origin: plane.url,
    authorization: '',
  };
}, 180_000);
afterAll(async () => {
  if (plane) {
    await api('DELETE', '/workspaces/hello');
    await until(
      () => api('GET', '/workspaces/hello'),
      ({ status }) => status === 404,
    );
  }
  program.server?.close();
  await satellite?.stop();
  await plane?.stop();
  await database?.drop();
  await rm(folder, { recursive: true, force: true });
});

/** Loads what the first request loads, so that it is not measured. */
beforeEach(() => healthy());
async function healthy(): Promise<void> {
  for (const url of [plane.url, satellite.url]) expect((await fetch(`${url}/healthz`)).status).toBe(200);
}

/** Polls /healthz of the server and the satellite while `work` runs; how long the two blocked the event loop. */
async function meanwhile<T>(work: () => Promise<T>): Promise<{ result: T; maxBlockedMs: number }> {
  let done = false;
  const polled = (async () => {
    do await healthy();
    while (!done);
  })();
  const loop = watchLoop();
  const result = await work().finally(() => {
    done = true;
  });
  await polled;
  return { result, maxBlockedMs: loop.stop().maxBlockedMs };
}

const sites = {
  server: () => ({ url: plane.url, suffix: 'localhost' }),
  satellite: () => ({ url: satellite.url, suffix: 'east.localhost' }),
};

describe.each(['server', 'satellite'] as const)('a WebSocket of a shared port, at the %s', (where) => {
  const host = () => {
    const { url, suffix } = sites[where]();
    return `${program.port}--hello--ada.${suffix}:${new URL(url).port}`;
  };
  /** A visitor's open WebSocket, as a bare connection. */
  async function visit(path: string): Promise<Socket> {
    const { port } = new URL(sites[where]().url);
    const socket = connect(Number(port), '127.0.0.1').on('error', () => {});
    onTestFinished(() => void socket.destroy());
    socket.write(
      `GET ${path} HTTP/1.1\r\nhost: ${host()}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n` +
        'sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n',
    );
    let head = '';
    while (!head.includes('\r\n\r\n')) head += String((await once(socket, 'data'))[0]);
    expect(head).toMatch(/^HTTP\/1.1 101 /);
    return socket;
  }

  test.each([
    ['messages of a byte', clientFrame(opcodes.binary, 'x')],
    ['empty messages', clientFrame(opcodes.binary)],
    ['pings', clientFrame(opcodes.ping)],
    ['nonsense', Buffer.from('nonsense')],
  ])('2 MB of %s reach the program, and other requests are not delayed', async (_what, frame) => {
    const { maxBlockedMs } = await meanwhile(() =>
      floodSocket(`${sites[where]().url}/discard`, { host: host() }, repeat(frame, megabytes)),
    );
    expect(program.read).toBeGreaterThanOrEqual(megabytes);
    expect(maxBlockedMs).toBeLessThan(100);
  });

  test('a program that does not read slows the visitor down, and no one else', async () => {
    const socket = await visit('/stuck');
    const flood = Buffer.alloc(256 * 1024, 'x');
    const { maxBlockedMs } = await meanwhile(async () => {
      let sent = 0;
      const more = () => {
        while (sent < 1024 ** 3) {
          sent += flood.length;
          if (!socket.write(flood)) return;
        }
      };
      socket.on('drain', more);
      more();
      expect(await settled(() => sent)).toBeLessThan(128 * 1024 * 1024);
    });
    expect(maxBlockedMs).toBeLessThan(100);
  });

  test('a visitor who does not read slows the program down, and no one else', async () => {
    program.written = 0;
    const socket = await visit('/pour');
    socket.pause();
    const { maxBlockedMs } = await meanwhile(async () => {
      expect(await settled(() => program.written)).toBeLessThan(128 * 1024 * 1024);
    });
    expect(maxBlockedMs).toBeLessThan(100);
  });
});

describe('a satellite that runs by itself', () => {
  const ticket = async (): Promise<string> =>
    (await api('POST', '/workspaces/hello/tickets', { clientKey: makeClientKey().publicKey })).body.ticket;

  test.each([
    ['bytes', clientFrame(opcodes.binary, 'x')],
    ['text', clientFrame(opcodes.text, 'x')],
    ['empty messages', clientFrame(opcodes.binary)],
    ['pongs', clientFrame(opcodes.pong)],
  ])('cuts off a client that floods its agent with %s', async (_what, frame) => {
    const authorization = `Bearer ${await ticket()}`;
    const { result, maxBlockedMs } = await meanwhile(() =>
      floodSocket(`${satellite.url}/relay/v1/dial`, { authorization }, repeat(frame, megabytes)),
    );
    expect(result.bytesRead).toBeLessThan(1024 * 1024);
    expect(maxBlockedMs).toBeLessThan(100);
  });

  test.each([
    ['keys', clientFrame(opcodes.binary, 'x'), 'too many messages'],
    ['sizes', clientFrame(opcodes.text, '{"type":"resize","cols":80,"rows":24}'), 'too many messages'],
    ['nonsense', clientFrame(opcodes.text, 'x'), 'not a message of a terminal'],
    ['pongs', clientFrame(opcodes.pong), 'too many control frames'],
  ])('cuts off a page that floods its terminal with %s', async (_what, frame, reason) => {
    const ways: TerminalRoutes = (await api('POST', '/workspaces/hello/terminal-ways', {}, session)).body;
    const { code } = ways.satellites.find(({ name }) => name === 'east')!;
    const first = Buffer.from(JSON.stringify({ type: 'open', code, cols: 80, rows: 24 }));
    const head = Buffer.from([0x81, 0x80 | 126, first.length >> 8, first.length & 0xff, 0, 0, 0, 0]);
    const { result, maxBlockedMs } = await meanwhile(() =>
      floodSocket(
        `${satellite.url}/terminal`,
        { origin: plane.url },
        Buffer.concat([head, first, repeat(frame, megabytes)]),
      ),
    );
    expect(result.close).toEqual({ code: 1008, reason });
    expect(result.bytesRead).toBeLessThan(512 * 1024);
    expect(maxBlockedMs).toBeLessThan(100);
  });
});
