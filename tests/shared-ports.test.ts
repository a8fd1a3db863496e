import { once } from 'node:events';
import { mkdir } from 'node:fs/promises';
import {
  createServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  request as makeRequest,
  type Server,
} from 'node:http';
import { type AddressInfo, connect, createServer as createTcpServer, type Socket } from 'node:net';
import { makeClientKey } from '@cde/tunnel/auth/keys.ts';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { WebSocket, WebSocketServer } from 'ws';
import { type Api, makeApi } from './kit/api.ts';
import { freePort } from './kit/free-port.ts';
import { type Server as CdeServer, inTestNetwork, type Machine, makeMachine } from './kit/machine.ts';
import { until } from './kit/until.ts';

/** The proxy of ports by the real programs: server, agent, a program that speaks HTTP and WebSocket. */
let machine: Machine;
let server: CdeServer;
let api: Api & { token: string };
let program: Awaited<ReturnType<typeof makeProgram>>;
/** Cookies of the dashboard: of the workspace's owner, and of a member. */
let owner: string;
let member: string;
/** What the dashboard keeps beside each cookie. */
const sessionKeys = new Map<string, string>();
const dashboard = () => server.url;
const port = () => program.port;
/** Where ports have names of their own: at the server, or at a satellite that may serve browsers. */
let site = { suffix: '.localhost', url: '' };
const portHost = (at = port()) => `${at}--hello--owner${site.suffix}`;
const sitePort = () => new URL(site.url).port;
const byPath = () => `/@owner/hello/ports/${port()}`;

beforeAll(async () => {
  machine = await makeMachine(inTestNetwork);
  await mkdir(machine.env.HOME!, { recursive: true });
  server = await machine.start();
  site = { suffix: '.localhost', url: server.url };
  api = await makeApi(machine, server.url);
  program = await makeProgram();
  expect(
    (await api('POST', '/api/v1/users', { username: 'ada', password: 'a password of ada' })).status,
  ).toBe(201);
  const link = await api('POST', '/api/v1/auth/one-time-links');
  const code = new URL(link.body.url).hash.slice('#code='.length);
  owner = signedIn(await send('/api/v1/auth/one-time', { body: { code } }));
  member = await signIn('ada');
});
afterAll(async () => {
  program?.close();
  await machine?.remove();
});

async function signIn(username: string): Promise<string> {
  return signedIn(
    await send('/api/v1/auth/sign-in', { body: { username, password: `a password of ${username}` } }),
  );
}
function signedIn(reply: Got): string {
  const cookie = cookieOf(reply, 'cde_session');
  sessionKeys.set(cookie, reply.json().sessionKey);
  return cookie;
}

/** What `/ports/open` of the dashboard asks for its visitor. */
const openPort = (session: string, search: string | URLSearchParams) =>
  send('/api/v1/port-visits', {
    cookie: session,
    headers: { 'x-cde-session-key': sessionKeys.get(session) ?? '' },
    body: Object.fromEntries(new URLSearchParams(search)),
  });

/** Tells what it was asked, and does a few things that programs do. */
async function makeProgram() {
  const seen: { url: string; method: string; headers: IncomingHttpHeaders }[] = [];
  const sockets = new WebSocketServer({ noServer: true });
  const http: Server = createServer(async (request, response) => {
    seen.push({ url: request.url!, method: request.method!, headers: request.headers });
    const path = request.url!.split('?')[0];
    if (path === '/echo') return void request.pipe(response);
    if (path === '/events') {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      return void response.write('data: first\n\n');
    }
    if (path === '/away') {
      response.writeHead(302, { location: `http://localhost:${program.port}/here?x=1` });
      return void response.end();
    }
    if (path === '/big') {
      const piece = Buffer.alloc(256 * 1024, 'x');
      let written = 0;
      response.writeHead(200);
      response.on('close', () => {
        program.written = written;
      });
      const more = () => {
        while (written < 64 * 1024 * 1024) {
          written += piece.length;
          program.written = written;
          if (!response.write(piece)) return void response.once('drain', more);
        }
        response.end();
      };
      return more();
    }
    if (path === '/headers')
      response.setHeaders(
        new Map<string, string | string[]>([
          [
            'set-cookie',
            [
              'app=1; Path=/; Domain=localhost',
              'cde_session=stolen; Path=/',
              'cde_port=planted',
              '__Host-cde_port=x',
              '=cde_port=nameless',
            ],
          ],
          ['clear-site-data', '"cookies"'],
          ['x-accel-redirect', '/internal'],
          ['access-control-allow-origin', '*'],
          ['service-worker-allowed', '/'],
          ['content-security-policy', 'sandbox allow-same-origin allow-scripts'],
          ['cache-control', 'public, max-age=60'],
          ['x-own', 'yes'],
          ['connection', 'x-hop'],
          ['x-hop', 'of this connection'],
        ]),
      );
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({ url: request.url, method: request.method, headers: request.headers }));
  });
  http.on('upgrade', (request, socket, head) => {
    seen.push({ url: request.url!, method: 'UPGRADE', headers: request.headers });
    socket.on('error', () => {});
    if (request.url === '/no')
      return void socket.end('HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno');
    sockets.handleUpgrade(request, socket, head, (client) => {
      client.send('welcome');
      client.on('message', (data, binary) => client.send(data, { binary }));
    });
  });
  http.listen(0, '127.0.0.1');
  await once(http, 'listening');
  return {
    port: (http.address() as AddressInfo).port,
    seen,
    last: () => seen.at(-1)!,
    /** Bytes of /big that were taken off it so far. */
    written: 0,
    close() {
      http.closeAllConnections();
      http.close();
    },
  };
}

/** Takes whatever comes, and says what it was told to, byte for byte; it ends no connection by itself. */
async function makeHostileProgram() {
  const sockets = new Set<Socket>();
  const program = {
    port: 0,
    reply: '',
    sockets,
    /** What the last visitor sent. */
    got: '',
    close() {
      tcp.close();
      for (const socket of sockets) socket.destroy();
    },
  };
  const tcp = createTcpServer((socket) => {
    sockets.add(socket);
    program.got = '';
    socket.on('error', () => {});
    socket.once('close', () => sockets.delete(socket));
    socket.on('data', (data) => {
      program.got += data.toString('latin1');
    });
    socket.once('data', () => socket.write(program.reply, 'latin1'));
  });
  tcp.listen(0, '127.0.0.1');
  await once(tcp, 'listening');
  program.port = (tcp.address() as AddressInfo).port;
  return program;
}

interface Got {
  status: number;
  headers: IncomingHttpHeaders;
  text: string;
  json: () => any;
}
interface Asking {
  host?: string;
  method?: string;
  headers?: Record<string, string>;
  cookie?: string;
  body?: unknown;
  page?: boolean;
  /** A body that comes some time after the headers. */
  later?: string;
}
const browserPage = {
  accept: 'text/html,*/*',
  'sec-fetch-mode': 'navigate',
  'sec-fetch-dest': 'document',
  'sec-fetch-site': 'none',
};

/** A request as it stands, no address resolved and nothing followed. */
function ask(path: string, asking: Asking = {}) {
  const { hostname, port: at } = new URL(asking.host === undefined ? server.url : site.url);
  const json = asking.body !== undefined && !(asking.body instanceof Buffer);
  const request = makeRequest({
    host: hostname,
    port: at,
    path,
    method: asking.method ?? (asking.body === undefined ? 'GET' : 'POST'),
    headers: {
      host: `${asking.host ?? hostname}:${at}`,
      ...(asking.page && browserPage),
      ...(asking.cookie && { cookie: asking.cookie }),
      ...(json && { 'content-type': 'application/json', origin: server.url }),
      ...asking.headers,
    },
  });
  request.on('error', () => {});
  if (asking.later !== undefined) {
    request.flushHeaders();
    setTimeout(() => request.end(asking.later), 100);
  } else if (asking.body instanceof Buffer) request.end(asking.body);
  else request.end(json ? JSON.stringify(asking.body) : undefined);
  return request;
}
async function send(path: string, asking: Asking = {}): Promise<Got> {
  const [reply] = (await once(ask(path, asking), 'response')) as [IncomingMessage];
  const pieces: Buffer[] = [];
  for await (const piece of reply) pieces.push(piece);
  const text = Buffer.concat(pieces).toString();
  return { status: reply.statusCode!, headers: reply.headers, text, json: () => JSON.parse(text) };
}
const cookieOf = (got: Got, name: string) =>
  (got.headers['set-cookie'] ?? [])
    .map((line) => line.split(';')[0]!)
    .find((pair) => pair.startsWith(`${name}=`)) ?? '';

async function share(level: 'owner' | 'signed-in' | 'public' | null, at = port()) {
  const path = `/api/v1/workspaces/hello/ports/${at}`;
  const done = await (level ? api('PUT', path, { level }) : api('DELETE', path));
  expect(done.status).toBe(level ? 200 : 204);
}

/** What a browser that is signed in to the dashboard does; returns its cookies of the port's own name. */
async function enter(session: string, { host = portHost(), path = '/' } = {}) {
  const first = await send(path, { host, page: true });
  expect(first.status).toBe(302);
  const state = cookieOf(first, 'cde_port_state');
  const open = new URL(first.headers.location!);
  expect(open.origin).toBe(dashboard());
  expect(open.pathname).toBe('/ports/open');
  const second = await openPort(session, open.search);
  if (second.status !== 200) return { second, cookie: '', state, back: null };
  const back = new URL(second.json().location);
  const third = await send(`${back.pathname}${back.search}`, { host, page: true, cookie: state });
  return { second, third, state, back, cookie: cookieOf(third, 'cde_port') };
}

let satelliteToken = '';
/** A satellite beside the server that serves ports under a name of its own. */
async function makeSite() {
  const added = await machine.cde('satellite', 'add', 'east');
  satelliteToken = added.stdout.trim();
  const port = await freePort();
  expect(await machine.cde('satellite', 'web', 'east', '--port-host', '*.east.localhost')).toMatchObject({
    code: 0,
  });
  const satellite = machine.begin(
    ['satellite', 'start', '--server', server.url, '--listen', `127.0.0.1:${port}`],
    { CDE_SATELLITE_TOKEN: satelliteToken, CDE_LOG_LEVEL: 'info' },
  );
  await satellite.says('satellite is registered');
  // Its new agent learns of all satellites at once.
  expect(await machine.cde('restart', 'hello')).toMatchObject({ code: 0 });
  return { suffix: '.east.localhost', url: `http://127.0.0.1:${port}` };
}

describe.each(['server', 'satellite'] as const)('by name, at a %s', (where) => {
  const ofSatellite = (...one: [name: string, run: () => Promise<void>, ms?: number]) => {
    if (where === 'satellite') test(...one);
  };
  beforeAll(async () => {
    if (where === 'server') return;
    site = await makeSite();
    await share(null);
    program.seen.length = 0;
  }, 60_000);

  test('nobody gets to a port that is not shared, whatever they show', async () => {
    expect((await send('/', { host: portHost() })).json()).toMatchObject({ code: 'sign-in-required' });
    expect((await enter(owner)).second).toMatchObject({ status: 404 });
    const bearer = { authorization: `Bearer ${api.token}` };
    expect((await send('/', { host: portHost(), headers: bearer })).json()).toMatchObject({
      code: where === 'server' ? 'port-not-shared' : 'bad-request',
    });
    expect(program.seen).toEqual([]);
  });

  test('public: anybody, both ways, as it stands', async () => {
    await share('public');
    const got = await send('/some/path?q=%2e%2e', {
      host: portHost(),
      headers: {
        'x-forwarded-for': '6.6.6.6',
        'x-forwarded-host': 'evil',
        connection: 'close, x-mine',
        'x-mine': 'for the proxy',
        te: 'trailers',
        authorization: 'Basic b3duOnB3',
      },
      cookie: `app=1; ${owner}; cde_port=abc; other=2`,
    });
    expect(got.status).toBe(200);
    const { url, headers } = got.json();
    expect(url).toBe('/some/path?q=%2e%2e');
    const at = sitePort();
    expect(headers).toMatchObject({
      host: `localhost:${port()}`,
      'x-original-host': `${portHost()}:${at}`,
      'x-original-proto': 'http',
      'x-forwarded-for': '127.0.0.1',
      authorization: 'Basic b3duOnB3',
    });
    expect(headers.cookie.replaceAll(' ', '')).toBe('app=1;other=2');
    expect(headers).not.toHaveProperty('x-mine');
    expect(headers).not.toHaveProperty('x-forwarded-host');
    expect(headers).not.toHaveProperty('te');
    // A token of ours is for us, and none for a satellite.
    const token = await send('/', { host: portHost(), headers: { authorization: `bearer  ${api.token}` } });
    if (where === 'server') expect(token.json().headers).not.toHaveProperty('authorization');
    else
      expect(token).toMatchObject({
        status: 400,
        text: expect.stringContaining('must not be sent to a satellite'),
      });

    const body = Buffer.alloc(3 * 1024 * 1024, 'a');
    const framings: Record<string, string>[] = [
      { 'content-length': String(body.length) },
      { 'transfer-encoding': 'chunked' },
    ];
    for (const headers of framings) {
      const echo = await send('/echo', { host: portHost(), method: 'DELETE', body, headers });
      expect(echo.text.slice(0, 300)).toBe('a'.repeat(300));
      expect(echo.text.length).toBe(body.length);
    }
    const small = await send('/echo', { host: portHost(), method: 'PUT', body: Buffer.from('sent') });
    expect(small.text).toBe('sent');
    // Many small ones at once: headers and body leave together, and arrive as they were.
    const many = await Promise.all(
      Array.from({ length: 200 }, (_, at) =>
        send('/echo', {
          host: portHost(),
          method: 'PUT',
          body: Buffer.from(`sent ${at}`),
          headers: { 'x-long': 'x'.repeat(at * 10) },
        }),
      ),
    );
    expect(many.map(({ text }) => text)).toEqual(many.map((_, at) => `sent ${at}`));
    // As browsers do: the body in a packet of its own.
    const late = ask('/echo', {
      host: portHost(),
      method: 'PUT',
      headers: { 'content-length': '4' },
      later: 'late',
    });
    const [reply] = (await once(late, 'response')) as [IncomingMessage];
    expect(String((await once(reply, 'data'))[0])).toBe('late');
    const away = await send('/away', { host: portHost() });
    expect(away).toMatchObject({
      status: 302,
      headers: { location: `http://${portHost()}:${at}/here?x=1` },
    });
    // To the program its own page is its own, and any other is another.
    const own = `http://${portHost()}:${at}`;
    const post = async (origin: string) =>
      (await send('/', { host: portHost(), method: 'POST', headers: { origin } })).json().headers.origin;
    expect(await post(own)).toBe(`http://localhost:${port()}`);
    expect(await post(own.replace('hello', 'other'))).toBe(own.replace('hello', 'other'));
    expect(await post('https://evil.example')).toBe('https://evil.example');
  });

  test('what a reply may not do', async () => {
    const { headers } = await send('/headers', { host: portHost() });
    expect(headers['set-cookie']).toEqual(['app=1; Path=/']);
    for (const name of ['clear-site-data', 'x-accel-redirect', 'x-hop'])
      expect(headers).not.toHaveProperty(name);
    expect(headers).toMatchObject({ 'x-own': 'yes', 'cache-control': 'public, max-age=60' });
  });

  test('events arrive as they come; a slow reader slows the program down; a lost one ends it', async () => {
    const events = ask('/events', { host: portHost() });
    const [reply] = (await once(events, 'response')) as [IncomingMessage];
    const [first] = await once(reply, 'data');
    expect(String(first)).toBe('data: first\n\n');
    events.destroy();

    const big = ask('/big', { host: portHost() });
    const [slow] = (await once(big, 'response')) as [IncomingMessage];
    slow.pause();
    let before = -1;
    await until(
      async () => {
        const stalled = program.written === before;
        before = program.written;
        await new Promise((resolve) => setTimeout(resolve, 300));
        return stalled;
      },
      (stalled) => stalled,
    );
    expect(program.written).toBeLessThan(40 * 1024 * 1024);
    let got = 0;
    slow.on('data', (piece: Buffer) => {
      got += piece.length;
    });
    slow.resume();
    await once(slow, 'end');
    expect(got).toBe(64 * 1024 * 1024);
  });

  test('WebSockets, and their refusal', async () => {
    const at = sitePort();
    const open = (path: string, host = portHost(), headers = {}) => {
      const socket = new WebSocket(`ws://127.0.0.1:${at}${path}`, {
        headers: { host: `${host}:${at}`, ...headers },
      });
      onTestFinished(() => socket.terminate());
      return socket;
    };
    const socket = open('/live', portHost(), { origin: `http://${portHost()}:${at}` });
    expect(String((await once(socket, 'message'))[0])).toBe('welcome');
    expect(program.last()).toMatchObject({
      method: 'UPGRADE',
      headers: { origin: `http://localhost:${port()}`, host: `localhost:${port()}` },
    });
    const data = Buffer.alloc(1024 * 1024, 'z');
    socket.send(data);
    expect((await once(socket, 'message'))[0]).toEqual(data);
    expect(String((await once(open('/no'), 'error'))[0])).toContain('403');
    expect(String((await once(open('/', portHost(1)), 'error'))[0])).toContain('401');
  });

  describe('a program that means harm', () => {
    let hostile: Awaited<ReturnType<typeof makeHostileProgram>>;
    beforeAll(async () => {
      hostile = await makeHostileProgram();
      await share('public', hostile.port);
    });
    afterAll(async () => {
      await share(null, hostile.port);
      hostile.close();
    });
    /** What a visitor reads who sends just this; `leave` ends the visit. */
    function visit(text: string) {
      const { hostname, port: at } = new URL(site.url);
      const socket = connect(Number(at), hostname).on('error', () => {});
      onTestFinished(() => void socket.destroy());
      const visitor = { got: '', leave: () => socket.end() };
      socket.on('data', (data) => {
        visitor.got += data.toString('latin1');
      });
      socket.write(text, 'latin1');
      return visitor;
    }
    const asks = (more = '', host = portHost(hostile.port)) =>
      `GET / HTTP/1.1\r\nHost: ${host}:${sitePort()}\r\n${more}\r\n`;
    const upgrade =
      'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n';

    test.each([
      ['a status that is none', 'HTTP/1.1 099 x\r\ncontent-length: 0\r\n\r\n', '502', '502'],
      [
        'a reason that nobody may send',
        'HTTP/1.1 400 b\x01\x7fd\r\ncontent-length: 0\r\n\r\n',
        '400 b  d',
        '400 b  d',
      ],
      [
        'a body that is none',
        'HTTP/1.1 400 no\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\nZZ\r\n',
        '400 no',
        '400 no',
      ],
      ['a protocol of its own', 'HTTP/1.1 101 x\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n', '502', '101'],
      ['half an upgrade', 'HTTP/1.1 101 x\r\n\r\n', '502', '502'],
      ['a thousand promises', 'HTTP/1.1 102 Processing\r\n\r\n'.repeat(1_000), '502', '502'],
      ['a refusal', 'HTTP/1.1 403 no\r\ncontent-length: 0\r\n\r\n', '403', '403'],
      ['nothing', '', '', ''],
    ])('answers with %s', async (_, reply, toRequest, toUpgrade) => {
      hostile.reply = reply;
      for (const [more, expected] of [
        ['', toRequest],
        [upgrade, toUpgrade],
      ] as const) {
        const visitor = visit(asks(more));
        await until(
          async () => (expected ? visitor.got : `${hostile.sockets.size}`),
          (got) => (expected ? got.startsWith(`HTTP/1.1 ${expected}`) : got === '1'),
        );
        visitor.leave();
        // Nothing of it stays, though the program would keep the connection.
        await until(
          async () => hostile.sockets.size,
          (left) => left === 0,
        );
      }
      // And nobody else is the worse for it.
      expect(await send('/', { host: portHost() })).toMatchObject({ status: 200 });
    });

    test.each([
      'refused by us',
      'refused by the program',
    ])('a WebSocket that was %s is not kept by a visitor who does not hang up', async (by) => {
      hostile.reply = 'HTTP/1.1 403 no\r\ncontent-length: 0\r\n\r\n';
      const { hostname, port: at } = new URL(site.url);
      const socket = connect({ port: Number(at), host: hostname, allowHalfOpen: true });
      socket.on('error', () => {}).resume();
      const closed = new Promise((resolve) => socket.once('close', resolve));
      socket.write(asks(upgrade, portHost(by === 'refused by us' ? 1 : hostile.port)));
      await once(socket, 'end');
      // Whoever writes to a connection that is gone is told so.
      const writing = setInterval(() => socket.write('x'), 100);
      await closed.finally(() => clearInterval(writing));
    });

    test('a body cannot pose as a request of its own', async () => {
      hostile.reply = 'HTTP/1.1 200 ok\r\ncontent-length: 0\r\n\r\n';
      const body = 'GET /second HTTP/1.1\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n';
      visit(asks(`Connection: content-length\r\nContent-Length: ${body.length}\r\n`) + body);
      await until(
        async () => hostile.got,
        (got) => got.endsWith(body),
      );
      expect(hostile.got.toLowerCase()).toContain(`content-length: ${body.length}\r\n`);
    });
  });

  test('a program that listens on ::1 alone is reached', async () => {
    const only = createServer((_, response) => response.end('from ::1'));
    await once(only.listen(0, '::1'), 'listening');
    const at = (only.address() as AddressInfo).port;
    await share('public', at);
    const got = await send('/', { host: portHost(at) });
    expect(got).toMatchObject({ status: 200, text: 'from ::1' });
    await share(null, at);
    only.close();
  });

  test('nothing listens: said in words, to a person as a page', async () => {
    await share('public', 9);
    const host = portHost(9);
    expect(await send('/', { host })).toMatchObject({ status: 502 });
    const page = await send('/', { host, page: true });
    expect(page.headers['content-type']).toContain('text/html');
    expect(page.text).toContain('Nothing listens on port 9 of this workspace.');
    await share(null, 9);
  });

  test('owner: by a code from the dashboard, for one browser, one name, once', async () => {
    await share('owner');
    // A satellite remembers for two seconds what it was told.
    await until(
      () => send('/', { host: portHost() }),
      ({ status }) => status === 401,
    );
    const entered = await enter(owner, { path: '/deep?x=1' });
    const own = `http://${portHost()}:${sitePort()}`;
    expect(entered.third).toMatchObject({ status: 302, headers: { location: `${own}/deep?x=1` } });
    // Two slashes that are found only on the way back lead nowhere else either.
    const slashes = await enter(owner, { path: '/.//evil.example/' });
    expect(slashes.third).toMatchObject({ headers: { location: `${own}//evil.example/` } });
    const seen = program.seen.length;
    const got = await send('/deep', {
      host: portHost(),
      page: true,
      cookie: `${entered.cookie}; ${owner}; a=b`,
    });
    expect(got).toMatchObject({ status: 200, headers: { 'content-type': 'application/json' } });
    expect(got.json().headers.cookie.trim()).toBe('a=b');
    expect(got.headers['cache-control']).toBe('private');
    expect(JSON.stringify(program.seen)).not.toContain('cde_session');

    // The code again; another's code in this browser; made-up ones; another name.
    const { back } = entered;
    const again = (cookie: string, host = portHost(), query = back!.search) =>
      send(`${back!.pathname}${query}`, { host, page: true, cookie });
    expect((await again(entered.state)).text).toContain('port-sign-in-failed');
    const fresh = await enterUntilCode(owner);
    expect((await again('', portHost(), fresh.search)).text).toContain('port-sign-in-failed');
    expect((await again(fresh.state, portHost(), fresh.search)).text).toContain('port-sign-in-failed');
    const other = await enterUntilCode(owner);
    expect((await again(other.state, `1${portHost()}`, other.search)).status).not.toBe(302);
    expect((await again(entered.state, portHost(), '?code=cde_port_x&to=/')).status).toBe(401);
    // The dashboard's cookie itself, a forged one, one of another name.
    for (const cookie of [owner, owner.replace('cde_session', 'cde_port'), `${entered.cookie}x`])
      expect(await send('/', { host: portHost(), cookie })).toMatchObject({ status: 401 });
    await share('owner', 9);
    expect(await send('/', { host: portHost(9), cookie: entered.cookie })).toMatchObject({
      status: 401,
    });
    await share(null, 9);
    // Another user, and another user's token.
    expect((await enter(member)).second).toMatchObject({ status: 404 });
    expect(program.seen.slice(seen).map(({ url }) => url)).toEqual(['/deep']);
    // Never to another place than the port's own.
    const elsewhere = new URL(
      (await send('//evil.example/x', { host: portHost(), page: true })).headers.location!,
    );
    expect(elsewhere.origin).toBe(dashboard());
    const opened = await openPort(owner, elsewhere.search);
    expect(new URL(opened.json().location).hostname).toBe(portHost());
    expect((await openPort(owner, 'host=evil.example&to=/&state=x')).status).toBe(404);
    // A program on another port of the dashboard's host has its cookie, and not the key.
    sessionKeys.set(`${owner}; a=b`, owner);
    expect((await openPort(`${owner}; a=b`, elsewhere.search)).status).toBe(401);
  });

  test('a page of another origin does not act with the cookie; another port of the same workspace does', async () => {
    const { cookie } = await enter(owner);
    const at = sitePort();
    const from = (headers: Record<string, string>, method = 'POST') =>
      send('/act', { host: portHost(), method, cookie, headers });
    const evil = { origin: `http://1--evil--ada${site.suffix}:${at}`, 'sec-fetch-site': 'same-site' };
    expect(await from(evil)).toMatchObject({ status: 403 });
    expect(await from({ origin: 'null', 'sec-fetch-site': 'cross-site' })).toMatchObject({ status: 403 });
    expect(
      await from(
        { 'sec-fetch-site': 'same-site', 'sec-fetch-dest': 'image', 'sec-fetch-mode': 'no-cors' },
        'GET',
      ),
    ).toMatchObject({ status: 403 });
    const sibling = `http://${portHost(9)}:${at}`;
    expect(await from({ origin: sibling, 'sec-fetch-site': 'same-site' })).toMatchObject({ status: 200 });
    const asked = { origin: sibling, 'access-control-request-method': 'PUT' };
    expect(await send('/act', { host: portHost(), method: 'OPTIONS', headers: asked })).toMatchObject({
      status: 204,
      headers: { 'access-control-allow-origin': sibling },
    });
    expect(
      await from({ origin: `http://${portHost()}:${at}`, 'sec-fetch-site': 'same-origin' }),
    ).toMatchObject({
      status: 200,
    });
  });

  test('Host games: what is under the wildcard is a port or nothing, and never the dashboard', async () => {
    for (const host of [
      `evil${site.suffix}`,
      `x--hello--owner${site.suffix}`,
      `0--hello--owner${site.suffix}`,
      `99999--a--b${site.suffix}`,
    ])
      for (const path of ['/', '/api/v1/auth/methods', '/healthz', '/relay/v1/probe'])
        expect(await send(path, { host })).toMatchObject({ status: 404 });
    const upper = await send('/api/v1/users', { host: portHost().toUpperCase() });
    expect(upper.status).toBe(401);
    // Names have no case: in Host, in Origin, and on the way through the sign-in.
    const shouted = await enter(owner, { host: portHost().toUpperCase() });
    expect(shouted.back!.hostname).toBe(portHost());
    const got = await send('/', {
      host: portHost().toUpperCase(),
      method: 'POST',
      cookie: shouted.cookie,
      headers: { origin: `http://${portHost(9).toUpperCase()}:${sitePort()}`, 'sec-fetch-site': 'same-site' },
    });
    expect(got.json().headers).toMatchObject({
      host: `localhost:${port()}`,
      'x-original-host': `${portHost()}:${sitePort()}`,
      origin: 'http://localhost:9',
    });
    expect((await send('http://127.0.0.1/api/v1/auth/methods', { host: portHost() })).status).toBe(400);
    // Another's names are nothing here.
    if (where === 'satellite')
      expect((await send('/', { host: `${port()}--hello--owner.localhost` })).status).toBe(404);
    // Where a name stands for it, the path leads there.
    if (where === 'satellite') return;
    const led = await send(`${byPath()}/x?y`, { page: true, cookie: owner });
    expect(led.headers.location).toBe(`http://${portHost()}:${new URL(server.url).port}/x?y`);
  });

  test('signed-in: every user; a suspended one is out within ten seconds, open connections too', async () => {
    await share('signed-in');
    const { cookie } = await enter(member);
    expect(await send('/', { host: portHost(), cookie })).toMatchObject({ status: 200 });
    const events = ask('/events', { host: portHost(), cookie });
    const [reply] = (await once(events, 'response')) as [IncomingMessage];
    reply.on('error', () => {});
    reply.resume();
    const began = performance.now();
    const closed = new Promise((resolve) => reply.once('close', resolve));
    expect(await api('PATCH', '/api/v1/users/ada', { status: 'suspended' })).toMatchObject({ status: 200 });
    await closed;
    expect(performance.now() - began).toBeLessThan(10_000);
    expect(await send('/', { host: portHost(), cookie })).toMatchObject({ status: 401 });
    await api('PATCH', '/api/v1/users/ada', { status: 'active' });
    // Their sessions have ended with that.
    expect(await send('/', { host: portHost(), cookie })).toMatchObject({ status: 401 });
    member = await signIn('ada');
  });

  test('the API: what listens, with its address; each change in the audit log', async () => {
    const list = await api('GET', '/api/v1/workspaces/hello/ports');
    expect(list.body).toMatchObject({ mostLevel: 'public', by: 'name' });
    expect(list.body.items).toContainEqual(
      expect.objectContaining({
        port: port(),
        level: 'signed-in',
        url: `http://${port()}--hello--owner.localhost:${new URL(server.url).port}/`,
        elsewhere:
          where === 'server'
            ? []
            : [{ satellite: 'east', region: '', url: `http://${portHost()}:${sitePort()}/` }],
      }),
    );
    const audit = await api('GET', '/api/v1/audit?action=workspace.port*&limit=1000');
    expect(
      audit.body.items.map(({ action, before, after }: any) => [action, before?.level, after?.level]),
    ).toEqual(
      expect.arrayContaining([
        ['workspace.port-share', undefined, 'public'],
        ['workspace.port-share', 'public', 'owner'],
        ['workspace.port-unshare', 'owner', undefined],
      ]),
    );
  });

  ofSatellite(
    'whatever a satellite asks, it gets tickets for what its visitors may open, and for no more',
    async () => {
      const visit = async (headers: Record<string, string>) => {
        const reply = await fetch(`${server.url}/api/v1/satellite/port-visits`, {
          method: 'POST',
          headers: { authorization: `Bearer ${satelliteToken}`, 'content-type': 'application/json' },
          body: JSON.stringify({
            head: { method: 'GET', url: '/', headers },
            clientKey: makeClientKey().publicKey,
          }),
        });
        return (await reply.json()) as any;
      };
      const own = `${port()}--hello--owner.localhost`;
      await share('owner');
      const here = site;
      site = { suffix: '.localhost', url: server.url };
      const there = await enter(owner);
      site = here;
      const cookies = [owner, there.cookie, there.cookie.replace('cde_port', 'cde_session')];
      for (const headers of [
        { host: portHost() },
        ...cookies.map((cookie) => ({ host: portHost(), cookie })),
        // What is good at the server's own names is none of its business.
        { host: own, cookie: there.cookie },
        { host: 'localhost', cookie: owner },
        { host: '' },
      ]) {
        const got = await visit(headers);
        expect(got, JSON.stringify(headers)).toMatchObject({ kind: 'refuse' });
        expect(got).not.toHaveProperty('ticket');
      }
      const { cookie } = await enter(owner);
      const { ticket } = await visit({ host: portHost(), cookie });
      const claims = JSON.parse(Buffer.from(ticket.ticket.split('.')[1], 'base64url').toString());
      expect(claims).toMatchObject({
        kind: 'limited',
        only: [`tcp:localhost:${port()}`],
        satellites: ['east'],
        paths: ['relay'],
      });
      expect(await visit({ host: own, cookie })).toMatchObject({ kind: 'refuse' });
    },
  );

  ofSatellite(
    'what an administrator takes back ends within a heartbeat',
    async () => {
      await share('public');
      await until(
        () => send('/', { host: portHost() }),
        ({ status }) => status === 200,
      );
      const events = ask('/events', { host: portHost() });
      const [reply] = (await once(events, 'response')) as [IncomingMessage];
      reply.on('error', () => {});
      reply.resume();
      const closed = new Promise((resolve) => reply.once('close', resolve));
      expect(await machine.cde('satellite', 'web', 'east', '--off')).toMatchObject({ code: 0 });
      await closed;
      // Not even the name is one any more.
      await until(
        () => send('/', { host: portHost() }),
        ({ text }) => !text.includes('port-') && !text.includes('sign-in'),
        20_000,
      );
      site = { suffix: '.localhost', url: server.url };
      expect(await send('/', { host: portHost() })).toMatchObject({ status: 200 });
    },
    40_000,
  );

  async function enterUntilCode(session: string) {
    const first = await send('/', { host: portHost(), page: true });
    const open = new URL(first.headers.location!);
    const second = await openPort(session, open.search);
    return { state: cookieOf(first, 'cde_port_state'), search: new URL(second.json().location).search };
  }
});

describe('by path, where there is no wildcard name', () => {
  beforeAll(async () => {
    await server.stop();
    server = await machine.start({ CDE_PORT_HOST: 'off', CDE_PORT_SHARING: 'signed-in' });
    site = { suffix: '', url: server.url };
    await until(
      () => api('GET', '/api/v1/workspaces/hello'),
      ({ body }) => body.agent?.connected,
    );
    await share('owner');
    // The agent finds the server again in its own time.
    const headers = { authorization: `Bearer ${api.token}` };
    await until(
      () => send(`${byPath()}/`, { headers }),
      ({ status }) => status === 200,
      60_000,
    );
  }, 90_000);

  /** The path with the pass that the dashboard gets. */
  async function pass(session: string) {
    const got = await send(`${byPath()}/`, { page: true, cookie: session });
    const to = encodeURIComponent(`${byPath()}/`);
    expect(got).toMatchObject({ status: 302, headers: { location: `/ports/open?to=${to}` } });
    const opened = await openPort(session, `to=${to}`);
    expect(opened.status).toBe(200);
    return opened.json().location as string;
  }
  /** As the browser sends what a sandboxed page asks for. */
  const fromPage = {
    origin: 'null',
    'sec-fetch-site': 'cross-site',
    'sec-fetch-mode': 'cors',
    'sec-fetch-dest': 'empty',
  };

  test('the policy of the server counts', async () => {
    expect(await api('PUT', `/api/v1/workspaces/hello/ports/${port()}`, { level: 'public' })).toMatchObject({
      status: 403,
      body: { code: 'port-sharing-limited' },
    });
  });

  test('the page is sandboxed, gets no cookie and no password, and sets none', async () => {
    const seen = program.seen.length;
    const path = await pass(owner);
    expect(path).toMatch(/^\/@owner\/hello\/ports\/\d+\/~cde\.[\w.-]+\/$/);
    // To get there, nothing was asked of the workspace.
    expect(program.seen.length).toBe(seen);
    const got = await send(`${path}headers`, {
      page: true,
      cookie: `${owner}; proxy=secret`,
      headers: { authorization: 'Basic b3duOnB3', referer: `${dashboard()}${path}` },
    });
    expect(got.status).toBe(200);
    const { headers, url } = got.json();
    expect(url).toBe('/headers');
    expect(headers).toMatchObject({ 'x-forwarded-prefix': path.slice(0, -1), host: `localhost:${port()}` });
    for (const name of ['cookie', 'authorization', 'referer']) expect(headers).not.toHaveProperty(name);
    expect(got.headers['content-security-policy']).toMatch(/^sandbox (?!.*allow-same-origin.*, )/);
    expect(got.headers['content-security-policy']).toContain(', sandbox allow-same-origin');
    for (const name of [
      'set-cookie',
      'service-worker-allowed',
      'clear-site-data',
      'access-control-allow-origin',
    ])
      expect(got.headers).not.toHaveProperty(name);
    expect(got.headers).toMatchObject({ 'referrer-policy': 'no-referrer', 'x-own': 'yes' });
    expect(got.headers['cache-control']).toBe('private, max-age=60');
    // Its own files, without any cookie, as modules want them.
    const file = await send(`${path}app.js`, { headers: fromPage });
    expect(file).toMatchObject({ status: 200, headers: { 'access-control-allow-origin': 'null' } });
    expect((await send(`${path}away`, { headers: fromPage })).headers.location).toBe(`${path}here?x=1`);
    const asked = {
      ...fromPage,
      'access-control-request-method': 'PUT',
      'access-control-request-headers': 'x-a',
    };
    expect(await send(`${path}api`, { method: 'OPTIONS', headers: asked })).toMatchObject({ status: 204 });
    // Its API of the dashboard is another site's to it.
    const act = await send('/api/v1/auth/one-time-links', {
      method: 'POST',
      headers: fromPage,
      cookie: owner,
    });
    expect(act.status).toBe(401);
  });

  test('the dashboard loads nothing from there; a service worker neither', async () => {
    const path = await pass(owner);
    const script = {
      'sec-fetch-site': 'same-origin',
      'sec-fetch-mode': 'no-cors',
      'sec-fetch-dest': 'script',
    };
    expect(await send(`${path}app.js`, { headers: script, cookie: owner })).toMatchObject({ status: 403 });
    expect(
      await send(`${path}sw.js`, { headers: { 'service-worker': 'script' }, cookie: owner }),
    ).toMatchObject({ status: 403 });
  });

  test('WebSockets go with the pass, and not with the cookie', async () => {
    const path = await pass(owner);
    const open = (at: string, headers: Record<string, string>) => {
      const socket = new WebSocket(`${dashboard().replace('http', 'ws')}${at}`, { headers });
      onTestFinished(() => socket.terminate());
      return socket;
    };
    expect(String((await once(open(`${path}live`, { origin: 'null' }), 'message'))[0])).toBe('welcome');
    expect(program.last().url).toBe('/live');
    const plain = open(`${byPath()}/live`, { cookie: owner, origin: dashboard() });
    expect(String((await once(plain, 'error'))[0])).toContain('401');
  });

  test('a pass is for one port, and not for whoever finds it', async () => {
    const path = await pass(owner);
    // Opened by somebody else: to the plain path, which asks who they are.
    const opened = await send(path, { page: true, cookie: member });
    expect(opened).toMatchObject({ status: 302, headers: { location: `${byPath()}/` } });
    expect(await openPort(member, `to=${byPath()}/`)).toMatchObject({ status: 404 });
    expect((await send(`${byPath()}/`, { page: true })).headers.location).toMatch(/^\/ports\/open\?to=/);
    sessionKeys.set(`${owner}; a=b`, 'guessed');
    expect(await openPort(`${owner}; a=b`, `to=${byPath()}/`)).toMatchObject({ status: 401 });
    await share('owner', 9);
    const other = path.replace(`/ports/${port()}/`, '/ports/9/');
    expect(await send(`${other}x`, { headers: fromPage })).toMatchObject({ status: 401 });
    await share(null, 9);
    expect(await send(`${path.replace(/.\/$/, 'x/')}x`, { headers: fromPage })).toMatchObject({
      status: 401,
    });
    // Whatever dots say, it is the port that hears them.
    const seen = program.seen.length;
    for (const dots of [
      '../../../../api/v1/users',
      '%2e%2e/%2e%2e/api/v1/users',
      '..%2f..%2fhealthz',
      '/evil.example/',
    ]) {
      const got = await send(`${path}${dots}`, { headers: fromPage });
      expect(got.json().url).toBe(`/${dots}`);
    }
    expect(program.seen.length).toBe(seen + 4);
    // With the sign-out, or the share, it is over.
    await share(null);
    expect(await send(`${path}x`, { headers: fromPage })).toMatchObject({ status: 401 });
  });
});
