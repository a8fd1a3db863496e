import { afterAll, beforeAll, expect, test } from 'vitest';
import { makeTestServer, type TestServer } from '../testing.ts';

let server: TestServer;
beforeAll(async () => {
  server = await makeTestServer();
});
afterAll(() => server.close());

test('a user reads themselves, with a request id', async () => {
  const ada = await server.addUser('ada');
  const reply = await server.request(ada, 'GET', '/api/v1/users/me');
  expect(reply).toMatchObject({ status: 200, body: { username: 'ada', role: 'member' } });
  expect(reply.headers['x-request-id']).toBeTruthy();
});

test('without a sign-in every error has a code, a message and a hint', async () => {
  const reply = await server.request(null, 'GET', '/api/v1/users/me');
  expect(reply).toMatchObject({
    status: 401,
    body: { code: 'sign-in-required', actions: [{ kind: 'sign-in' }], requestId: expect.any(String) },
  });
});

test('an unknown token and a missing token give different errors', async () => {
  const reply = await server.request(
    { id: '', username: '', token: 'cde_nonsense' },
    'GET',
    '/api/v1/users/me',
  );
  expect(reply).toMatchObject({ status: 401, body: { code: 'token-invalid' } });
});

test('the contract is published as OpenAPI 3.1', async () => {
  const reply = await server.request(null, 'GET', '/api/v1/openapi.json');
  expect(reply.body.openapi).toBe('3.1.0');
  expect(reply.body.paths['/api/v1/users/{user}'].get.summary).toBe('Show a user');
});

test('an unknown route has its own error code', async () => {
  expect(await server.request(null, 'GET', '/api/v1/nothing')).toMatchObject({
    status: 404,
    body: { code: 'route-not-found' },
  });
});

test('text that PostgreSQL cannot store is a 400 in every field', async () => {
  const owner = await server.addUser('nul', 'owner');
  const asked: [string, string, unknown?][] = [
    ['GET', '/api/v1/workspaces?search=%00'],
    ['GET', '/api/v1/workspaces/%00'],
    ['GET', '/api/v1/users/%00'],
    ['GET', '/api/v1/audit?actor=%00'],
    ['GET', '/api/v1/templates/%00'],
    ['PATCH', '/api/v1/users/nul', { name: 'a\0b' }],

    ['POST', '/api/v1/tokens', { name: '\0' }],
    ['POST', '/api/v1/auth/sign-in', { username: 'a\0', password: 'x' }],
  ];
  for (const [method, url, body] of asked) {
    const reply = await server.request(owner, method as 'GET', url, body);
    expect([reply.status, reply.body.code], `${method} ${url}`).toEqual([400, 'bad-request']);
  }
});

test('a body with many errors gets a reply that lists only some of them', async () => {
  const user = await server.addUser('faults');
  const body = { name: 'x', scopes: Array(100_000).fill('?') };
  const reply = await server.request(user, 'POST', '/api/v1/tokens', body);
  expect(reply.status).toBe(400);
  expect(reply.body.issues.length).toBeLessThanOrEqual(100);
  expect(JSON.stringify(reply.body).length).toBeLessThan(50_000);
});

test('API replies are neither cached nor sniffed', async () => {
  const ada = await server.addUser('cached');
  for (const url of ['/api/v1/users/me', '/api/v1/workspaces', '/api/v1/nothing', '/api/v1/users/nobody']) {
    const { headers } = await server.request(ada, 'GET', url);
    expect(headers).toMatchObject({ 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' });
  }
});

test('a request that arrives too slowly times out', () => {
  expect(server.app.server.requestTimeout).toBe(60_000);
  expect(server.app.server.headersTimeout).toBeGreaterThan(0);
  expect(server.app.server.headersTimeout).toBeLessThanOrEqual(60_000);
});
