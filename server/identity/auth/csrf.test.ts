import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, expect, test } from 'vitest';
import WebSocket from 'ws';
import { users } from '../../database/schema.ts';
import { makeTestServer, type TestServer } from '../../testing.ts';
import { hashPassword } from '../sign-in/passwords.ts';
import { allowedOrigins } from './origins.ts';

let server: TestServer;
/** What the dashboard sends: the cookie and the session key. */
let session: { cookie: string; 'x-cde-session-key': string };
let address: string;
beforeAll(async () => {
  server = await makeTestServer();
  await server.addUser('ada');
  await server.database.db.update(users).set({ passwordHash: await hashPassword('a long password') });
  const reply = await server.request(null, 'POST', '/api/v1/auth/sign-in', {
    username: 'ada',
    password: 'a long password',
  });
  session = {
    cookie: String(reply.headers['set-cookie']).split(';')[0]!,
    'x-cde-session-key': reply.body.sessionKey,
  };
  await server.app.listen({ host: '127.0.0.1', port: 0 });
  address = `127.0.0.1:${(server.app.server.address() as AddressInfo).port}`;
});
afterAll(() => server.close());

const post = (headers: Record<string, string>) =>
  server.request(null, 'POST', '/api/v1/tokens', { name: 'made by a page' }, { ...session, ...headers });

test('the dashboard can make changes at every loopback name', async () => {
  for (const host of ['127.0.0.1', 'localhost', '[::1]'])
    expect((await post({ origin: `http://${host}:7080` })).status, host).toBe(201);
  expect((await post({ 'sec-fetch-site': 'same-origin' })).status).toBe(201);
});

test('other origins cannot, whatever headers they send', async () => {
  for (const headers of [
    { origin: 'https://evil.example' },
    { origin: 'http://127.0.0.1:7081' },
    { origin: 'https://127.0.0.1:7080' },
    { origin: 'http://localhost:7080.evil.example' },
    { origin: 'null' },
    { origin: 'https://evil.example', 'sec-fetch-site': 'same-origin' },
    { 'sec-fetch-site': 'cross-site' },
    { 'sec-fetch-site': 'same-site' },
    {},
  ] as Record<string, string>[])
    expect(await post(headers), JSON.stringify(headers)).toMatchObject({
      status: 403,
      body: { code: 'csrf-rejected', hint: expect.any(String) },
    });
});

test('reads and token requests need no Origin', async () => {
  const foreign = { origin: 'https://evil.example' };
  const read = await server.request(null, 'GET', '/api/v1/users/me', undefined, {
    ...session,
    ...foreign,
  });
  expect(read.status).toBe(200);
  expect(read.headers['access-control-allow-origin']).toBeUndefined();
  const bob = await server.addUser('bob');
  const made = await server.request(bob, 'POST', '/api/v1/tokens', { name: 'from anywhere' }, foreign);
  expect(made.status).toBe(201);
});

test('a form on another site cannot sign a browser in', async () => {
  const reply = await server.app.inject({
    method: 'POST',
    url: '/api/v1/auth/sign-in',
    headers: { 'content-type': 'application/x-www-form-urlencoded', origin: 'https://evil.example' },
    payload: 'username=ada&password=a long password',
  });
  expect(reply.statusCode).toBe(415);
  expect(reply.headers['set-cookie']).toBeUndefined();
});

/** Opens a WebSocket. Returns `open` or the status of the rejection. */
function upgrade(headers: Record<string, string>): Promise<string | number> {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(`ws://${address}/api/v1/events`, { headers });
    socket.on('open', () => {
      socket.close();
      resolve('open');
    });
    socket.on('unexpected-response', (_request, response) => {
      response.resume();
      resolve(response.statusCode ?? 0);
    });
    socket.on('error', reject);
  });
}

test('only the dashboard can open a WebSocket', async () => {
  expect(await upgrade({ ...session, origin: 'http://localhost:7080' })).toBe('open');
  expect(await upgrade({ ...session, origin: 'https://evil.example' })).toBe(403);
  expect(await upgrade(session)).toBe(403);
  expect(await upgrade({ origin: 'http://localhost:7080' })).toBe(401);
});

test('other loopback names are allowed only if the server is reachable only on loopback', () => {
  const origins = (accessUrl: string, loopback: boolean) => allowedOrigins({ accessUrl, loopback });
  expect(origins('http://127.0.0.1:7080', true)).toEqual([
    'http://127.0.0.1:7080',
    'http://localhost:7080',
    'http://[::1]:7080',
  ]);
  expect(origins('http://localhost:7080', false)).toEqual(['http://localhost:7080']);
  expect(origins('https://cde.example.com/', true)).toEqual(['https://cde.example.com']);
});
