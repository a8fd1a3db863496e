import { afterAll, beforeAll, expect, test } from 'vitest';
import { makeTestServer, type TestServer } from '../../testing.ts';

// Builders on a real cluster: tests/kubernetes/build.test.ts.

let server: TestServer;
beforeAll(async () => {
  server = await makeTestServer();
});
afterAll(() => server.close());

test('a workspace of another provider has no builder, and the error says so', async () => {
  const owner = await server.addUser('owner', 'owner');
  await server.request(owner, 'POST', '/api/v1/templates', {
    files: { 'template.yaml': 'name: plain\nprovider: local\n' },
  });
  const ada = await server.addUser('ada');
  const made = await server.request(ada, 'POST', '/api/v1/workspaces', {
    name: 'web',
    template: 'plain',
    start: false,
  });
  expect(made.status).toBe(201);
  for (const [method, path] of [
    ['GET', 'builder'],
    ['POST', 'builder/credentials'],
  ] as const)
    expect(await server.request(ada, method, `/api/v1/workspaces/web/${path}`)).toMatchObject({
      status: 409,
      body: {
        code: 'no-builder',
        message: 'web has no image builder.',
        detail: 'Its provider is local, which has none.',
      },
    });
});
