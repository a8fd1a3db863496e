import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders, type Server } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { text } from 'node:stream/consumers';
import { afterEach, beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest';
import type { BodyRate } from './bodies.ts';
import { listen, makeTestProxy, stop } from './testing.ts';

/** Attacks by visitors on a program, its other visitors or the proxy. */
let program: Server;
let proxy: Awaited<ReturnType<typeof makeTestProxy>>;
let seen: { method: string; url: string; headers: IncomingHttpHeaders; body: string }[];

beforeEach(async () => {
  seen = [];
  program = createServer(async (request, response) => {
    const { method = '', url = '', headers } = request;
    const body = await text(request).catch(() => null);
    if (body === null) return;
    seen.push({ method, url, headers, body });
    response.end('from the program');
  });
  await listen(program);
  proxy = await makeProxy();
});
afterEach(() => {
  proxy.close();
  stop(program);
});

/** Behind a trusted proxy, whose header tells anonymous visitors apart. */
const makeProxy = (bodyRate?: BodyRate) => {
  const { port } = program.address() as AddressInfo;
  return makeTestProxy({
    programPort: () => port,
    visit: () => ({ origin: `http://${port}--web--ada.dev.example.com`, prefix: null, isPublic: true }),
    user: ({ headers }) => headers['x-user'] as string | undefined,
    trustProxy: '127.0.0.1',
    ...(bodyRate && { bodyRate }),
  });
};

/** A visitor that sends exactly this text. */
function visit(text: string) {
  const socket: Socket = connect(proxy.port, '127.0.0.1').on('error', () => {});
  onTestFinished(() => void socket.destroy());
  const visitor = { got: '', socket, closed: once(socket, 'close') };
  socket.on('data', (data) => {
    visitor.got += data.toString('latin1');
  });
  socket.write(text, 'latin1');
  return visitor;
}
const answered = (visitor: { got: string }, status: number | RegExp) =>
  vi.waitFor(
    () =>
      expect(visitor.got).toMatch(
        new RegExp(`^HTTP/1.1 ${status instanceof RegExp ? status.source : status} `),
      ),
    {
      timeout: 20_000,
    },
  );
const host = 'Host: port.example\r\n';
const hidden = 'GET /smuggled HTTP/1.1\r\nHost: port.example\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n';

describe('a body never becomes a request', () => {
  test.each([
    ['both framings', `Content-Length: 4\r\nTransfer-Encoding: chunked\r\n`, `0\r\n\r\n`],
    [
      'both framings, the other way round',
      `Transfer-Encoding: chunked\r\nContent-Length: 4\r\n`,
      `0\r\n\r\n`,
    ],
    ['two lengths', `Content-Length: 0\r\nContent-Length: ${hidden.length}\r\n`, ''],
    ['a list of lengths', `Content-Length: 0, ${hidden.length}\r\n`, ''],
    ['a signed length', `Content-Length: +${hidden.length}\r\n`, ''],
    ['an unknown coding', `Transfer-Encoding: x\r\n`, ''],
    ['a coding that is chunked twice', `Transfer-Encoding: chunked, chunked\r\n`, '0\r\n\r\n'],
    ['a coding before chunked', `Transfer-Encoding: gzip, chunked\r\n`, '0\r\n\r\n'],
    ['a space before the colon', `Content-Length : ${hidden.length}\r\n`, ''],
    ['a folded header', `Transfer-Encoding:\r\n chunked\r\n`, '0\r\n\r\n'],
    ['a bare line feed', `X: y\nTransfer-Encoding: chunked\r\n`, '0\r\n\r\n'],
    ['a null byte', `X: a\0b\r\n`, ''],
  ])('%s', async (_, headers, body) => {
    const visitor = visit(`POST / HTTP/1.1\r\n${host}${headers}\r\n${body}${hidden}`);
    await answered(visitor, /(400|501)/);
    await visitor.closed;
    expect(seen.map(({ url }) => url)).not.toContain('/smuggled');
  });

  test('a length behind more headers than Node keeps', async () => {
    const padding = 'a:\r\n'.repeat(1_500);
    const length = `Content-Length: ${hidden.length}\r\n`;
    const visitor = visit(`GET / HTTP/1.1\r\n${host}${padding}${length}\r\n${hidden}`);
    await answered(visitor, 431);
    await visitor.closed;
    expect(seen).toEqual([]);
  });

  test('underscores are no way around the headers that are ours', async () => {
    visit(
      `POST / HTTP/1.1\r\n${host}X_Forwarded_For: 6.6.6.6\r\nX_Forwarded_Host: evil\r\nContent_Length: 99\r\nTransfer_Encoding: chunked\r\nSec_Fetch_Site: same-origin\r\napi_key: mine\r\nContent-Length: 2\r\n\r\nok`,
    );
    await vi.waitFor(() => expect(seen).toHaveLength(1));
    const names = Object.keys(seen[0]!.headers);
    expect(names.filter((name) => name.includes('_'))).toEqual(['api_key']);
    expect(seen[0]).toMatchObject({ body: 'ok', headers: { 'x-forwarded-for': '127.0.0.1' } });
  });
});

describe('upgrades', () => {
  const upgrade = (more = '', to = 'websocket') =>
    `Connection: Upgrade\r\nUpgrade: ${to}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n${more}\r\n`;
  test.each([
    ['to HTTP/2', `GET / HTTP/1.1\r\n${host}${upgrade('HTTP2-Settings: AA\r\n', 'h2c')}`],
    ['by POST', `POST / HTTP/1.1\r\n${host}${upgrade()}`],
    ['with a body', `GET / HTTP/1.1\r\n${host}${upgrade(`Content-Length: ${hidden.length}\r\n`)}${hidden}`],
    [
      'with chunks',
      `GET / HTTP/1.1\r\n${host}${upgrade('Transfer-Encoding: chunked\r\n')}0\r\n\r\n${hidden}`,
    ],
  ])('%s is refused', async (_, text) => {
    const visitor = visit(text);
    await answered(visitor, 400);
    expect(seen).toEqual([]);
  });
});

describe('slow and many', () => {
  const slowPost = (from: string) =>
    visit(`POST /slow HTTP/1.1\r\n${host}X-Forwarded-For: ${from}\r\nContent-Length: 100000\r\n\r\nx`);
  const get = (more: string) => visit(`GET /quick HTTP/1.1\r\n${host}${more}\r\n`);

  test('a body that trickles in ends with 408, a steady one does not', async () => {
    proxy.close();
    proxy = await makeProxy({ windowMs: 1_000, minBytes: 1_000 });
    const slow = slowPost('192.0.2.1');
    const trickle = setInterval(() => slow.socket.write('x'), 50);
    await answered(slow, 408).finally(() => clearInterval(trickle));
    expect(slow.got).toContain('request-too-slow');
    await slow.closed;
    await vi.waitFor(() => expect(proxy.gateway.open).toBe(0));
    const steady = visit(`POST / HTTP/1.1\r\n${host}Transfer-Encoding: chunked\r\n\r\n`);
    const pieces = setInterval(() => steady.socket.write(`1000\r\n${'y'.repeat(0x1000)}\r\n`), 20);
    // Several windows.
    await vi.waitFor(() => expect(steady.socket.bytesWritten).toBeGreaterThan(400_000), { timeout: 20_000 });
    clearInterval(pieces);
    steady.socket.write('0\r\n\r\n');
    await answered(steady, 200);
  });

  test('270 slow POSTs of one visitor leave the others their share, and two of them leave users theirs', async () => {
    const refused = (visitors: { got: string }[]) =>
      visitors.filter(({ got }) => got.startsWith('HTTP/1.1 503'));
    const ofOne = Array.from({ length: 270 }, (_, at) => slowPost(`2001:db8::${at.toString(16)}`));
    // Those beyond the visitor's limit and its queue.
    await vi.waitFor(() => expect(refused(ofOne)).toHaveLength(20), { timeout: 20_000 });
    await answered(get('X-Forwarded-For: 192.0.2.7\r\n'), 200);
    const ofAnother = Array.from({ length: 270 }, () => slowPost('192.0.2.8'));
    await vi.waitFor(() => expect(refused(ofAnother).length).toBeGreaterThanOrEqual(20), { timeout: 20_000 });
    await answered(get('X-Forwarded-For: 192.0.2.8\r\nX-User: ada\r\n'), 200);
  }, 60_000);
});
