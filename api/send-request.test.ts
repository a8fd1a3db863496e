import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { ReplyTooLarge, sendRequest } from './send-request.ts';

const maxReplyBytes = 64 * 1024;
const servers: Server[] = [];

async function serve(listener: RequestListener, socketPath?: string): Promise<string> {
  const server = createServer(listener);
  servers.push(server);
  await new Promise<void>((resolve) => {
    if (socketPath) server.listen(socketPath, resolve);
    else server.listen(0, '127.0.0.1', resolve);
  });
  return socketPath ?? `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

afterEach(() => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    server.close();
  }
});

/** Replies with the request itself, as JSON. */
const echo: RequestListener = async (request, response) => {
  let body = '';
  for await (const chunk of request) body += chunk;
  const { method, url, headers } = request;
  response.writeHead(418, { 'content-type': 'application/json', 'set-cookie': ['a=1', 'b=2'] });
  response.end(JSON.stringify({ method, url, type: headers['content-type'], body }));
};

test('the reply is read whatever its status', async () => {
  const url = await serve(echo);
  const reply = await sendRequest(`${url}/path?q=1`, {
    method: 'POST',
    headers: { 'content-type': 'text/plain' },
    body: 'häl↵lo',
    maxReplyBytes,
  });
  expect(reply).toMatchObject({ status: 418, headers: { 'set-cookie': ['a=1', 'b=2'] } });
  const sent = { method: 'POST', url: '/path?q=1', type: 'text/plain', body: 'häl↵lo' };
  expect(JSON.parse(reply.text)).toEqual(sent);
});

test('a Unix socket', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'cde-send-'));
  try {
    const socketPath = await serve(echo, join(folder, 'sock'));
    const reply = await sendRequest({ socketPath, path: '/x' }, { method: 'DELETE', maxReplyBytes });
    expect(JSON.parse(reply.text)).toMatchObject({ method: 'DELETE', url: '/x', body: '' });
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('a redirect is not followed', async () => {
  let requests = 0;
  const url = await serve((_request, response) => {
    requests += 1;
    response.writeHead(302, { location: '/elsewhere' }).end();
  });
  const reply = await sendRequest(url, { method: 'GET', maxReplyBytes });
  expect(reply).toMatchObject({ status: 302, headers: { location: '/elsewhere' }, text: '' });
  expect(requests).toBe(1);
});

test('a reply that is too large is not read to its end, whether it says so or not', async () => {
  const block = Buffer.alloc(maxReplyBytes);
  const url = await serve((request, response) => {
    if (request.url === '/announced') response.setHeader('content-length', 1e9);
    const write = () => {
      while (!response.destroyed && response.write(block));
    };
    response.on('drain', write);
    write();
  });
  for (const path of ['/announced', '/endless'])
    await expect(sendRequest(url + path, { method: 'GET', maxReplyBytes })).rejects.toThrow(ReplyTooLarge);
});

test('a connection that ends, falls silent or is aborted rejects, also within the reply', async () => {
  const url = await serve((request, response) => {
    if (request.url === '/silent') return;
    response.writeHead(200).write('half of');
    if (request.url === '/cut') setImmediate(() => response.destroy());
  });
  const get = (path: string, more: { silenceMs?: number; signal?: AbortSignal } = {}) =>
    sendRequest(url + path, { method: 'GET', maxReplyBytes, ...more });
  await expect(get('/cut')).rejects.toThrow();
  await expect(get('/silent', { silenceMs: 50 })).rejects.toMatchObject({ code: 'ETIMEDOUT' });
  await expect(get('/half', { silenceMs: 50 })).rejects.toThrow();
  await expect(get('/half', { signal: AbortSignal.timeout(50) })).rejects.toThrow();
  await expect(sendRequest('http://127.0.0.1:1/', { method: 'GET', maxReplyBytes })).rejects.toMatchObject({
    code: 'ECONNREFUSED',
  });
});
