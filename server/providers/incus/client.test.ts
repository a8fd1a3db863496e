import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { isUnreachable, makeIncusClient, statusOf } from './client.ts';

/** The error of a call that is answered like this. */
async function errorOf(status: number, body: unknown): Promise<unknown> {
  const folder = await mkdtemp(join(tmpdir(), 'cde-incus-'));
  const socket = join(folder, 'unix.socket');
  const server = createServer((_, reply) => reply.writeHead(status).end(JSON.stringify(body))).listen(socket);
  await once(server, 'listening');
  const client = await makeIncusClient({ url: `unix://${socket}` });
  onTestFinished(async () => {
    await client.close();
    server.closeAllConnections();
    server.close();
    await rm(folder, { recursive: true });
  });
  return client.get('/1.0').then(
    () => null,
    (error: unknown) => error,
  );
}

test('a refusal of Incus has its code', async () => {
  const error = await errorOf(404, { type: 'error', error: 'Instance not found', error_code: 404 });
  expect(statusOf(error)).toBe(404);
  expect(isUnreachable(error)).toBe(false);
});

test.each([
  [500, { message: 'upstream failed' }],
  [404, { message: 'no route' }],
  [200, {}],
])('nothing is known of Incus from an answer %i that is not its own', async (status, body) => {
  expect(isUnreachable(await errorOf(status, body))).toBe(true);
});
