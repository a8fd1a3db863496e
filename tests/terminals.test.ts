import { once } from 'node:events';
import { setTimeout } from 'node:timers/promises';
import type { TerminalMessage } from '@cde/api/events.ts';
import type { TerminalRoutes } from '@cde/api/satellite-terminals.ts';
import { type Satellite, startSatellite } from '@cde/satellite/program.ts';
import { readSettings } from '@cde/satellite/settings.ts';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import { type Api, makeApi } from './kit/api.ts';
import { cloneDatabase } from './kit/database.ts';
import { freePort } from './kit/free-port.ts';
import { type Machine, makeMachine, type Server } from './kit/machine.ts';
import { until } from './kit/until.ts';

/** Browsers' terminals over a satellite: the real server, agent and shell; the satellite in this process, ten times as quick. */
let machine: Machine;
let server: Server;
let api: Api & { token: string };
let satellite: Satellite;
let token: string;
let metricsPort: number;
/** The dashboard's cookie and session key. */
let session: Record<string, string>;
const open: WebSocket[] = [];
/** Of the satellite, so far. */
let sleeps = 0;

beforeAll(async () => {
  // The satellite listens on this machine's loopback, which a workspace with a network of its own reaches only through the
  // server: here it must be reached while the server is unreachable.
  machine = await makeMachine({ CDE_LOCAL_NETWORK: 'shared', DATABASE_URL: await cloneDatabase() });
  server = await machine.start();
  api = await makeApi(machine, server.url);
  token = (await machine.cde('satellite', 'add', 'east')).stdout.trim();
  metricsPort = await freePort();
  expect(await machine.cde('satellite', 'web', 'east')).toMatchObject({ code: 0 });
  await start();
  // Its new agent learns of all satellites at once.
  expect(await machine.cde('restart', 'hello')).toMatchObject({ code: 0 });
  expect((await machine.cde('user', 'create', 'second', '--role', 'owner')).code).toBe(0);
});
afterEach(() => {
  for (const socket of open.splice(0)) socket.terminate();
});
afterAll(async () => {
  await satellite?.stop();
  await machine?.remove();
});

async function start(): Promise<void> {
  satellite = await startSatellite({
    settings: readSettings(['--server', server.url, '--token', token, '--listen', '127.0.0.1:0'], {
      CDE_LOG_LEVEL: 'silent',
      CDE_SATELLITE_DRAIN_SECONDS: '1',
      CDE_SATELLITE_METRICS_LISTEN: `127.0.0.1:${metricsPort}`,
    }),
    version: '1.2.3',
    onRejected() {},
    clock: {
      now: () => performance.now(),
      random: () => 1,
      sleep(ms, signal) {
        sleeps++;
        return setTimeout(ms / 10, undefined, { signal, ref: false }).catch(() => {});
      },
    },
  });
}

async function signIn(): Promise<void> {
  const link = await api('POST', '/api/v1/auth/one-time-links');
  const reply = await fetch(`${server.url}/api/v1/auth/one-time`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', origin: server.url },
    body: JSON.stringify({ code: new URL(link.body.url).hash.slice('#code='.length) }),
  });
  session = {
    cookie: reply.headers.getSetCookie()[0]!.split(';')[0]!,
    'x-cde-session-key': (await reply.json()).sessionKey,
  };
}
const asBrowser = (path: string) =>
  fetch(`${server.url}/api/v1/${path}`, {
    method: 'POST',
    headers: { ...session, origin: server.url, 'content-type': 'application/json' },
    body: '{}',
  });
const ways = async (): Promise<TerminalRoutes> => (await asBrowser('workspaces/hello/terminal-ways')).json();

/** What a page does with a terminal. */
async function connect(first: unknown, origin = server.url) {
  const socket = new WebSocket(`${satellite.url.replace('http', 'ws')}/terminal`, { origin });
  open.push(socket);
  const shown = { text: '', messages: [] as TerminalMessage[] };
  socket.on('message', (data: Buffer, binary: boolean) => {
    if (binary) shown.text += data.toString();
    else shown.messages.push(JSON.parse(data.toString()));
  });
  const closed = once(socket, 'close').then(([code, reason]) => ({ code, reason: String(reason) }));
  socket.on('error', () => {});
  await once(socket, 'open');
  if (first !== undefined)
    socket.send(Buffer.isBuffer(first) || typeof first === 'string' ? first : JSON.stringify(first));
  return {
    socket,
    shown,
    closed,
    type: (text: string) => socket.send(Buffer.from(text)),
    shows: (text: string | RegExp) =>
      until(
        async () => shown.text,
        (all) => (typeof text === 'string' ? all.includes(text) : text.test(all)),
      ),
    says: (type: TerminalMessage['type']) =>
      until(
        async () => shown.messages.find((message) => message.type === type),
        (message) => message !== undefined,
      ),
  };
}
async function terminal(name?: string) {
  const [east] = (await ways()).satellites;
  return connect({ type: 'open', code: east!.code, cols: 91, rows: 31, ...(name && { terminal: name }) });
}
/** With a shell that answers, over the satellite. */
async function shell(name?: string) {
  const made = await terminal(name);
  await made.says('opened');
  made.type('echo here-$((1+1))\n');
  await made.shows('here-2');
  return made;
}
/** The HTTP answer to a page that may not even connect. */
async function refusal(origin?: string) {
  const socket = new WebSocket(`${satellite.url.replace('http', 'ws')}/terminal`, {
    ...(origin && { origin }),
  });
  socket.on('error', () => {});
  const [, response] = await once(socket, 'unexpected-response');
  let body = '';
  for await (const chunk of response) body += chunk;
  return { status: response.statusCode as number, body: JSON.parse(body) };
}
const setWeb = async (on: boolean) =>
  expect(
    (await api('PUT', '/api/v1/satellites/east/web', { web: on ? { portHost: null } : null })).status,
  ).toBe(200);
/** The satellite has heard of what it may. */
const serves = (status: number) =>
  until(
    () => refusal('https://elsewhere.example.com'),
    ({ body }) => (body.code === 'csrf-rejected') === (status === 200),
  );

describe('a browser', () => {
  /** The test of silent sockets runs beside the others. */
  let silent: Awaited<ReturnType<typeof connect>>;
  beforeAll(async () => {
    await signIn();
    silent = await connect(undefined);
    open.splice(0);
  });
  afterAll(() => silent?.socket.terminate());

  test('types early and late; a second one sees the same shell; the exit code arrives', async () => {
    // As soon as its agent has measured and said so.
    await until(ways, ({ own }) => own.agentRttMs !== null);
    expect(await ways()).toMatchObject({
      own: { agentRttMs: expect.any(Number) },
      satellites: [{ name: 'east', url: satellite.url }],
    });
    const first = await terminal('shared');
    // Before there is a shell.
    first.type('stty size; kept=yes\n');
    await first.shows('31 91');
    first.socket.send(JSON.stringify({ type: 'resize', cols: 77, rows: 22 }));
    first.type('stty size\n');
    await until(
      async () => {
        first.type('stty size\n');
        return first.shown.text;
      },
      (text) => text.includes('22 77'),
    );
    const second = await terminal('shared');
    second.type('echo $kept-there\n');
    await Promise.all([first.shows('yes-there'), second.shows('yes-there')]);
    // Over this satellite, and through no other.
    const { load } = (
      await until(
        () => api('GET', '/api/v1/satellites/east'),
        ({ body }) => body.load?.sessions === 2,
      )
    ).body;
    expect(load.sessions).toBe(2);
    const metrics = await (await fetch(`http://127.0.0.1:${metricsPort}/metrics`)).text();
    expect(metrics).toMatch(/^cde_browser_terminals 2$/m);
    expect(metrics).toMatch(/^cde_browser_ports 0$/m);
    expect(metrics).toMatch(/^cde_relay_sessions 2$/m);
    first.type('exit 7\n');
    expect(await first.says('exit')).toMatchObject({ code: 7 });
    expect((await first.closed).code).toBe(1000);
  });

  test('gets everything that a shell prints, at its own speed', async () => {
    const made = await shell();
    made.socket.pause();
    made.type('head -c 10000000 /dev/zero | tr "\\0" x; echo the-en""d\n');
    // Answered by another shell, over the same satellite, while this one waits.
    (await shell()).socket.close();
    made.socket.resume();
    await made.shows('the-end');
    expect(made.shown.text.length).toBeGreaterThan(10_000_000);
  });

  test.each([
    ['nothing that it knows', { type: 'open', code: 'no code', cols: 80, rows: 24 }, 'invalid'],
    ['garbage', 'garbage', 'does not say'],
    ['bytes', Buffer.from([1, 2, 3]), 'does not say'],
    ['a resize', { type: 'resize', cols: 80, rows: 24 }, 'does not say'],
    ['a size of millions', { type: 'open', code: 'x', cols: 4e6, rows: 24 }, 'does not say'],
    [
      'a name that is a path',
      { type: 'open', code: 'x', cols: 80, rows: 24, terminal: '../x' },
      'does not say',
    ],
    ['much', `{"type":"open","code":"${'x'.repeat(20_000)}","cols":80,"rows":24}`, 'does not say'],
  ])('that sends %s first is rejected with a message', async (_, first, words) => {
    const made = await connect(first);
    expect(await made.says('exit')).toMatchObject({ code: null, message: expect.stringContaining(words) });
    expect([1000, 1008]).toContain((await made.closed).code);
  });

  test('that sends a megabyte, or nothing for ten seconds, is rejected', async () => {
    expect((await (await connect('x'.repeat(1_000_000))).closed).code).toBe(1009);
    expect(await silent.says('exit')).toMatchObject({
      message: expect.stringContaining('did not say in time'),
    });
    expect((await silent.closed).code).toBe(1008);
  });

  test('can open terminals only from the dashboard', async () => {
    for (const origin of ['https://elsewhere.example.com', satellite.url, 'null', undefined])
      expect(await refusal(origin)).toMatchObject({ status: 403, body: { code: 'csrf-rejected' } });
  });

  test('keeps its terminal while the server is unreachable, and loses it by signing out', async () => {
    const made = await shell();
    await server.kill();
    const before = sleeps;
    // Between attempts to reach the server: its checks of access and its registration fail meanwhile.
    await until(() => sleeps > before + 10, 'the satellite to have tried several times');
    made.type('echo alone-$((3+4))\n');
    await made.shows('alone-7');
    server = await machine.start();
    const { code } = (await ways()).satellites[0]!;
    expect((await asBrowser('auth/sign-out')).status).toBe(204);
    // Otherwise it would stay open for hours, longer than this test may take.
    expect(await made.closed).toEqual({ code: 4401, reason: 'sign in again' });
    const replayed = await connect({ type: 'open', code, cols: 80, rows: 24 });
    expect(await replayed.says('exit')).toMatchObject({ message: expect.stringContaining('Sign in') });
    await signIn();
  });

  test('goes elsewhere when terminals are turned off at the satellite', async () => {
    const made = await shell();
    await setWeb(false);
    expect(await made.closed).toMatchObject({
      code: 1012,
      reason: expect.stringContaining('does not serve terminals'),
    });
    expect((await ways()).satellites).toEqual([]);
    await serves(403);
    expect(await refusal(server.url)).toMatchObject({ status: 403, body: { code: 'forbidden' } });
    await setWeb(true);
    await serves(200);
  });

  test('goes elsewhere when the satellite is drained', async () => {
    const made = await shell();
    expect(await machine.cde('satellite', 'drain', 'east')).toMatchObject({ code: 0 });
    expect(await made.says('exit')).toMatchObject({
      code: null,
      message: expect.stringMatching(/draining|emptied/),
    });
    expect((await ways()).satellites).toEqual([]);
    expect(await refusal(server.url)).toMatchObject({ status: 503, body: { code: 'server-busy' } });
    expect(await machine.cde('satellite', 'drain', 'east', '--undo')).toMatchObject({ code: 0 });
    await until(
      async () => (await ways()).satellites.length,
      (count) => count === 1,
    );
  });

  test('loses its terminal with the suspension of its user', async () => {
    const made = await until(
      async () => {
        const one = await terminal();
        // The agent listens again within half a minute.
        return Promise.race([one.says('opened').then(() => one), one.closed.then(() => null)]);
      },
      (one) => one !== null,
      60_000,
    );
    const me = (await api('GET', '/api/v1/users/me')).body.username as string;
    expect((await api('PATCH', `/api/v1/users/${me}`, { status: 'suspended' })).status).toBe(200);
    expect(await made!.closed).toEqual({ code: 4401, reason: 'sign in again' });
  });
});
