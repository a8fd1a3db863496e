import { type AddressInfo, connect } from 'node:net';
import Fastify from 'fastify';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { makeTestServer, type TestServer, type TestUser } from '../testing.ts';
import { protocolErrorOptions, rejectWhileClosing } from './protocol-errors.ts';
import { installHttp } from './serve.ts';

/** Errors of Fastify and Node's HTTP parser must look like every other API error. */
let server: TestServer;
let user: TestUser;
beforeAll(async () => {
  server = await makeTestServer();
  user = await server.addUser('ada', 'owner');
  await server.app.listen({ port: 0, host: '127.0.0.1' });
});
afterAll(() => server.close());

/** Sends raw bytes and returns the reply. */
async function send(text: string): Promise<{ status: number; body: { code: string; message: string } }> {
  const { port } = server.app.server.address() as AddressInfo;
  const socket = connect({ port, host: '127.0.0.1' });
  socket.on('error', () => {});
  socket.write(text);
  let reply = '';
  socket.on('data', (chunk) => {
    reply += chunk;
    if (/\r\n\r\n.*\}$/s.test(reply)) socket.end();
  });
  await new Promise((resolve) => socket.once('close', resolve));
  const [head, body] = reply.split('\r\n\r\n') as [string, string];
  return { status: Number(head.split(' ')[1]), body: JSON.parse(body) };
}
const get = (path: string, headers = '') =>
  send(`GET ${path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${user.token}\r\n${headers}\r\n`);

test.each([
  ['a long part of the path', () => get(`/api/v1/users/${'x'.repeat(501)}`), 414, 'path-too-long'],
  ['one that is longer than any name', () => get(`/api/v1/users/${'x'.repeat(400)}`), 400, 'bad-request'],
  ['a long path', () => get(`/${'x'.repeat(17_000)}`), 431, 'headers-too-large'],
  ['long headers', () => get('/api/v1/users/me', `x: ${'x'.repeat(17_000)}\r\n`), 431, 'headers-too-large'],
  ['a path that cannot be decoded', () => get('/api/v1/users/%zz'), 400, 'bad-request'],
  [
    'an unknown method of a path',
    () => send('PURGE /api/v1/users HTTP/1.1\r\nhost: x\r\n\r\n'),
    404,
    'route-not-found',
  ],
  ['what is no HTTP', () => send('hello\r\n\r\n'), 400, 'bad-request'],
  [
    'a number beyond its column',
    () => get('/api/v1/templates/x/versions/3000000000/files'),
    400,
    'bad-request',
  ],
  [
    'a port beyond the last',
    () =>
      send(
        `DELETE /api/v1/workspaces/x/ports/65536 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${user.token}\r\n\r\n`,
      ),
    400,
    'bad-request',
  ],
])('%s', async (_what, ask, status, code) => {
  expect(await ask()).toMatchObject({
    status,
    body: { code, message: expect.any(String), requestId: expect.any(String) },
  });
});

test('an invalid terminal size is rejected before the upgrade', async () => {
  const upgrade =
    'connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n';
  for (const query of ['cols=0', 'cols=x', 'rows=1e9', 'terminal=../x'])
    expect(await get(`/api/v1/workspaces/box/terminal?${query}`, upgrade)).toMatchObject({
      status: 400,
      body: { code: 'bad-request' },
    });
});

test('expensive requests are limited per user', async () => {
  const other = await server.addUser('eyes', 'auditor');
  const asked = await Promise.all(
    Array.from({ length: 30 }, () => server.request(user, 'GET', '/api/v1/audit')),
  );
  const refused = asked.filter(({ status }) => status === 429);
  expect(refused.length).toBeGreaterThan(0);
  expect(refused[0]).toMatchObject({
    body: { code: 'too-many-requests' },
    headers: { 'retry-after': '1' },
  });
  expect(asked.filter(({ status }) => status === 200).length).toBeGreaterThanOrEqual(8);
  expect((await server.request(other, 'GET', '/api/v1/audit')).status).toBe(200);
  expect((await server.request(user, 'GET', '/api/v1/audit')).status).toBe(200);
});

test('requests during shutdown get an API error', async () => {
  const app = Fastify({ ...protocolErrorOptions });
  rejectWhileClosing(app);
  installHttp(app, { checkReplies: false });
  const [closing, leave] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  app.addHook('preClose', async () => {
    closing.resolve();
    await leave.promise;
  });
  app.get('/next', async () => 'next');
  app.get('/healthz', async () => 'ok');
  const url = await app.listen({ port: 0, host: '127.0.0.1' });
  const closed = app.close();
  await closing.promise;
  const reply = await fetch(`${url}/next`);
  expect(reply.status).toBe(503);
  expect(reply.headers.get('retry-after')).toBe('1');
  expect(await reply.json()).toMatchObject({ code: 'server-stopping', requestId: expect.any(String) });
  expect((await fetch(`${url}/healthz`)).status).toBe(200);
  leave.resolve();
  await closed;
});

test('the OpenAPI document marks public endpoints and describes errors', async () => {
  const { body } = await server.request(null, 'GET', '/api/v1/openapi.json');
  const signIn = body.paths['/api/v1/auth/sign-in'].post;
  expect(signIn.security).toEqual([]);
  expect(signIn.responses['4XX'].content['application/json'].schema.properties.code.type).toBe('string');
  expect(body.paths['/api/v1/users'].get.security).toBeUndefined();
  expect(body.paths['/api/v1/tokens/{token}'].delete.responses['204'].content).toBeUndefined();
  expect(body.paths['/healthz'].get.security).toEqual([]);
});
