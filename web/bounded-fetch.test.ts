import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { boundedFetch } from './bounded-fetch.ts';

const closers: (() => void)[] = [];
afterEach(() => {
  for (const close of closers.splice(0)) close();
});

async function serve(listener: RequestListener): Promise<string> {
  const server = createServer(listener);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  closers.push(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

test('a reply within the limits is passed on unchanged', async () => {
  const url = await serve((_, reply) =>
    reply.writeHead(201, { 'content-type': 'application/json' }).end('{"a":1}'),
  );
  const response = await boundedFetch(url, {}, { maxBytes: 7 });
  expect(response.status).toBe(201);
  expect(response.headers.get('content-type')).toBe('application/json');
  expect(await response.json()).toEqual({ a: 1 });
});

test('a reply without a body has none', async () => {
  const url = await serve((_, reply) => reply.writeHead(204).end());
  expect((await boundedFetch(url)).status).toBe(204);
});

test('a reply that is too large rejects', async () => {
  const url = await serve((_, reply) => reply.end('x'.repeat(100)));
  const response = await boundedFetch(url, {}, { maxBytes: 99 });
  await expect(response.text()).rejects.toThrow('larger than 99 bytes');
});

test('a reply that never ends rejects, before its head and after it', async () => {
  const silent = await serve(() => {});
  await expect(boundedFetch(silent, {}, { timeoutMs: 50 })).rejects.toThrow(/timeout/i);
  const endless = await serve((_, reply) => {
    reply.write('x');
  });
  // The head may come before or after the timeout; the body never ends.
  await expect(
    boundedFetch(endless, {}, { timeoutMs: 500 }).then((response) => response.text()),
  ).rejects.toThrow(/timeout/i);
});

test('the caller can still abort', async () => {
  const url = await serve(() => {});
  const controller = new AbortController();
  const call = boundedFetch(url, { signal: controller.signal });
  controller.abort(new Error('navigated away'));
  await expect(call).rejects.toThrow('navigated away');
});
