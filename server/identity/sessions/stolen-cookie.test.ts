import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import WebSocket from 'ws';
import { makeTestServer, type TestServer, type TestUser } from '../../testing.ts';

/**
 * Browsers send a cookie to every port of its host. Here a program on another port replays the cookie that it received,
 * with any other headers that might help.
 */
let server: TestServer;
let ada: TestUser;
let address: string;
/** Everything that the dashboard sends, and the part of it that other ports receive. */
let dashboard: Record<string, string>;
let stolen: Record<string, string>;

beforeAll(async () => {
  server = await makeTestServer();
  ada = await server.addUser('ada', 'owner');
  dashboard = (await server.addBrowser(ada.id)).headers;
  stolen = {
    cookie: dashboard.cookie!,
    origin: server.config.accessUrl,
    'sec-fetch-site': 'same-origin',
    'sec-fetch-dest': 'document',
    'sec-fetch-mode': 'navigate',
    accept: 'text/html',
  };
  await server.app.listen({ host: '127.0.0.1', port: 0 });
  address = `127.0.0.1:${(server.app.server.address() as AddressInfo).port}`;
});
afterAll(() => server.close());

/** Opens a WebSocket. Returns `open` with the chosen protocol, or the status of the rejection. */
function connect(path: string, protocols: string[], headers: Record<string, string>): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(`ws://${address}${path}`, protocols, { headers });
    socket.on('open', () => {
      socket.terminate();
      resolve(`open ${socket.protocol}`.trim());
    });
    socket.on('unexpected-response', (_request, response) => {
      response.resume();
      resolve(String(response.statusCode));
    });
    socket.on('error', reject);
  });
}

describe('a stolen cookie', () => {
  const attacks: [name: string, method: 'GET' | 'POST' | 'PUT' | 'DELETE', path: string, body?: object][] = [
    ['mints no token', 'POST', '/api/v1/tokens', { name: 'stolen' }],
    ['makes no sign-in link', 'POST', '/api/v1/auth/one-time-links', {}],
    ['approves no CLI login', 'POST', '/api/v1/auth/cli/CCCC-CCCC/approve'],
    ['adds no user', 'POST', '/api/v1/users', { username: 'mallory', role: 'owner' }],
    ['sets no password', 'PUT', '/api/v1/users/me/password', { password: 'of the thief' }],
    ['links no identity', 'POST', '/api/v1/auth/oidc/start', { link: true }],
    ['does not say who it is', 'GET', '/api/v1/users/me'],
    ['reads no audit log', 'GET', '/api/v1/audit'],
    ['reads no metrics', 'GET', '/metrics'],
    ['gets no ticket', 'POST', '/api/v1/workspaces/web/tickets', { clientKey: 'x' }],
    ['gets no pass of a port by path', 'POST', '/api/v1/port-visits', { to: '/@ada/web/ports/8080/' }],
    [
      'gets no code of a port by name',
      'POST',
      '/api/v1/port-visits',
      { host: '8080--web--ada.localhost', to: '/', state: 'x' },
    ],
  ];
  test.each(attacks)('%s', async (_, method, path, body) => {
    const reply = await server.request(null, method, path, body, stolen);
    expect(reply).toMatchObject({ status: 401, body: { code: 'sign-in-required' } });
    const guessed = { ...stolen, 'x-cde-session-key': stolen.cookie!.split('=')[1]! };
    expect(await server.request(null, method, path, body, guessed)).toMatchObject({ status: 401 });
  });

  test('ends no session', async () => {
    await server.request(null, 'POST', '/api/v1/auth/sign-out', {}, stolen);
    expect((await server.request(null, 'GET', '/api/v1/users/me', undefined, dashboard)).status).toBe(200);
  });

  test('opens no WebSocket, whatever key it offers', async () => {
    const cookie = stolen.cookie!.split('=')[1]!;
    for (const path of ['/api/v1/events', '/api/v1/workspaces/web/terminal'])
      for (const protocols of [[], ['cde'], ['cde', `cde-session-key.${cookie}`]])
        expect(await connect(path, protocols, stolen), `${path} ${protocols}`).toBe('401');
  });

  test('opens no port of a workspace', async () => {
    const reply = await server.request(
      null,
      'GET',
      '/ports/open?host=8080--web--ada.localhost',
      undefined,
      stolen,
    );
    // The dashboard's own page, which sends the key. (503 because this server has no build.)
    expect(reply.status).toBe(404);
  });
});

test('a stolen key without its cookie does not authenticate either', async () => {
  const key = { 'x-cde-session-key': dashboard['x-cde-session-key']!, origin: server.config.accessUrl };
  const cookie = 'cde_session=of another';
  for (const headers of [key, { ...key, cookie }])
    expect((await server.request(null, 'GET', '/api/v1/users/me', undefined, headers)).status).toBe(401);
});

test('the dashboard sends the key as a WebSocket protocol, which no reply echoes', async () => {
  const protocols = ['cde', `cde-session-key.${dashboard['x-cde-session-key']}`];
  const headers = { cookie: dashboard.cookie!, origin: server.config.accessUrl };
  expect(await connect('/api/v1/events', protocols, headers)).toBe('open cde');
});

test('a planted cookie is ignored and does not hide the real one', async () => {
  const mallory = await server.addUser('mallory');
  const { headers: theirs } = await server.addBrowser(mallory.id);
  const me = async (cookie: string) =>
    server.request(null, 'GET', '/api/v1/users/me', undefined, { ...dashboard, cookie });
  const own = dashboard.cookie!;
  for (const cookie of [
    `${theirs.cookie}; ${own}`,
    `${own}; ${theirs.cookie}`,
    `cde_session=; cde_session; ${'cde_session=x; '.repeat(100)}${own}`,
  ])
    expect(await me(cookie)).toMatchObject({ status: 200, body: { username: 'ada' } });
  expect((await me(theirs.cookie!)).status).toBe(401);
});

test('with https only a __Host- cookie counts', async () => {
  const other = await makeTestServer({ CDE_ACCESS_URL: 'https://cde.example.com' });
  try {
    const una = await other.addUser('una');
    const { headers } = await other.addBrowser(una.id);
    expect(headers.cookie).toMatch(/^__Host-cde_session=/);
    const me = (cookie: string) =>
      other.request(null, 'GET', '/api/v1/users/me', undefined, { ...headers, cookie });
    expect((await me(headers.cookie!)).status).toBe(200);
    expect((await me(headers.cookie!.replace('__Host-', ''))).status).toBe(401);
  } finally {
    await other.close();
  }
});
