import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { afterEach, beforeAll, describe, expect, test } from 'vitest';
import { type WebSocket, WebSocketServer } from 'ws';
import { makeCertificate } from '../auth/certificate.ts';
import { alpn } from '../auth/handshake.ts';
import type { TunnelError } from '../errors.ts';
import { repeat, watchLoop } from '../network/testing-flood.ts';
import { makePathPair } from '../paths/pair.ts';
import { makeSocketPath, openSocket } from '../paths/socket.ts';
import { ackFrame, beatFrame, frameHeaderBytes, frameTypes, writeFrameHeader } from '../pipe/frames.ts';
import { makePipe } from '../pipe/pipe.ts';
import { serveSession } from './host.ts';

/** What a hostile satellite, or a client without a ticket, can do to an agent or a client. */
const cleanups: (() => void)[] = [];
afterEach(() => {
  for (const clean of cleanups.splice(0)) clean();
});

describe('frames of a pipe', () => {
  const resume = Buffer.alloc(frameHeaderBytes);
  writeFrameHeader(resume, frameTypes.resume, 0, 0);
  test.each([
    ['ACKs', ackFrame(0), /frame-flood/],
    ['RESUMEs', resume, /frame-/],
  ])('%s without end end it', async (_what, frame, code) => {
    const [near, far] = makePathPair();
    const pipe = makePipe({ path: far });
    const ended = once(pipe, 'error') as Promise<[TunnelError]>;
    near.start({ data() {}, drain() {}, closed() {} });
    const loop = watchLoop();
    const chunk = repeat(frame, 64 * 1024);
    for (let sent = 0; sent < 2 * 1024 * 1024; sent += chunk.length) near.send(chunk);
    expect((await ended)[0].code).toMatch(code);
    expect(loop.stop().maxBlockedMs).toBeLessThan(100);
  });

  test('beats without end are read over', async () => {
    const [near, far] = makePathPair();
    const pipe = makePipe({ path: far });
    near.start({ data() {}, drain() {}, closed() {} });
    const loop = watchLoop();
    const data = Buffer.alloc(frameHeaderBytes + 1);
    writeFrameHeader(data, frameTypes.data, 1, 0);
    near.send(repeat(beatFrame(), 2 * 1024 * 1024));
    near.send(data);
    await once(pipe, 'readable');
    expect(loop.stop().maxBlockedMs).toBeLessThan(100);
    pipe.destroy();
  });
});

describe('a satellite', () => {
  /** Connects as an agent or a client does; `hostile` does what it likes with the other end. */
  async function connect(hostile: (socket: WebSocket) => void) {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const sockets = new WebSocketServer({ server });
    sockets.once('connection', (socket) => {
      socket.on('error', () => {});
      hostile(socket);
    });
    cleanups.push(() => {
      for (const socket of sockets.clients) socket.terminate();
      server.close();
    });
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const socket = await openSocket(url, '/relay/v1/listen', 'token', {});
    return new Promise<TunnelError | null>((resolve) => {
      const path = makeSocketPath(socket, { via: url, onText() {}, onClosed: resolve });
      path.start({ data() {}, drain() {}, closed() {} });
    });
  }

  test.each([
    ['texts', (socket: WebSocket) => socket.send('x')],
    ['empty messages', (socket: WebSocket) => socket.send(Buffer.alloc(0))],
    ['pongs', (socket: WebSocket) => socket.pong()],
  ])('that floods with %s is left', async (_what, send) => {
    const loop = watchLoop();
    const error = await connect((socket) => {
      // In turns, so that what is measured is the one that is flooded.
      const more = () => {
        if (socket.readyState !== socket.OPEN) return;
        for (let count = 0; count < 500; count++) send(socket);
        setImmediate(more);
      };
      more();
    });
    expect(error?.code).toBe('satellite-lost');
    expect(loop.stop().maxBlockedMs).toBeLessThan(100);
  });
});

describe('HTTP/2 at the agent', () => {
  let certificate: Awaited<ReturnType<typeof makeCertificate>>;
  beforeAll(async () => {
    certificate = await makeCertificate();
  });

  /** A frame: RFC 9113, 4.1. */
  function h2Frame(type: number, flags: number, stream: number, payload: Buffer = Buffer.alloc(0)): Buffer {
    const head = Buffer.alloc(9);
    head.writeUIntBE(payload.length, 0, 3);
    head[3] = type;
    head[4] = flags;
    head.writeUInt32BE(stream, 5);
    return Buffer.concat([head, payload]);
  }
  const preface = Buffer.concat([Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), h2Frame(4, 0, 0)]);
  /** `:method: GET`, `:scheme: https`, `:path: /`, from HPACK's static table. */
  const headers = Buffer.from([0x82, 0x87, 0x84]);
  const streams = (make: (id: number) => Buffer, count: number) =>
    Buffer.concat(Array.from({ length: count }, (_, index) => make(2 * index + 1)));

  test.each([
    ['requests without a ticket', streams((id) => h2Frame(1, 5, id, headers), 20_000)],
    [
      'requests that are reset at once',
      streams(
        (id) => Buffer.concat([h2Frame(1, 5, id, headers), h2Frame(3, 0, id, Buffer.alloc(4))]),
        20_000,
      ),
    ],
    ['settings', repeat(h2Frame(4, 0, 0), 2 * 1024 * 1024)],
    ['pings', repeat(h2Frame(6, 0, 0, randomBytes(8)), 2 * 1024 * 1024)],
    ['empty data', repeat(h2Frame(0, 0, 1), 2 * 1024 * 1024)],
  ])('%s without end hold up nobody', async (_what, frames) => {
    const [near, far] = makePathPair();
    const hosted = serveSession({
      pipe: makePipe({ path: far }),
      tlsKey: certificate.key,
      tlsCert: certificate.cert,
      workspaceId: 'w',
      ticketKeys: [],
      agentKey: certificate.fingerprint,
      onStream: () => undefined,
      admissionTimeoutMs: 2_000,
    });
    const client = makePipe({ path: near });
    client.on('error', () => {});
    const tls = connectTls({ socket: client, ALPNProtocols: [alpn], rejectUnauthorized: false });
    tls.on('error', () => {});
    await once(tls, 'secureConnect');
    tls.resume();
    const loop = watchLoop();
    tls.write(preface);
    // In pieces, as a network delivers them.
    for (let at = 0; at < frames.length && !tls.destroyed; at += 16 * 1024) {
      tls.write(frames.subarray(at, at + 16 * 1024));
      await new Promise(setImmediate);
    }
    await hosted.closed;
    expect(loop.stop().maxBlockedMs).toBeLessThan(100);
  });
});
