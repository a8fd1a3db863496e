import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { PassThrough } from 'node:stream';
import fc from 'fast-check';
import { describe, expect, it, onTestFinished } from 'vitest';
import {
  connectDatagrams,
  frameDatagram,
  makeDatagramReader,
  maxWaitingBytes,
  sendDatagram,
} from './datagrams.ts';

async function echo() {
  const socket = createSocket('udp4');
  socket.on('message', (data, from) => socket.send(data, from.port, from.address));
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  onTestFinished(() => void socket.close());
  return { socket, port: (socket.address() as AddressInfo).port };
}

describe('datagrams in a stream', () => {
  it('come out as they went in, wherever the stream is cut', () => {
    const datagrams = fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 20 });
    fc.assert(
      fc.property(datagrams, fc.infiniteStream(fc.integer({ min: 1, max: 70 })), (sent, cuts) => {
        const bytes = Buffer.concat(sent.map(frameDatagram));
        const got: string[] = [];
        const read = makeDatagramReader((data) => got.push(data.toString('hex')));
        for (let at = 0; at < bytes.length; ) {
          const length = cuts.next().value;
          read(bytes.subarray(at, at + length));
          at += length;
        }
        expect(got).toEqual(sent.map((data) => Buffer.from(data).toString('hex')));
      }),
    );
  });

  it('are dropped if too many wait', () => {
    const stream = new PassThrough();
    let kept = 0;
    while (sendDatagram(stream, Buffer.alloc(1000))) kept += 1;
    expect(kept * 1000).toBeLessThanOrEqual(maxWaitingBytes + stream.readableHighWaterMark);
    expect(kept).toBeGreaterThan(100);
    stream.destroy();
    expect(sendDatagram(stream, Buffer.alloc(1))).toBe(false);
  });

  it('go to a UDP port and back, including the longest and the empty one', async () => {
    const { port } = await echo();
    const stream = await connectDatagrams('localhost', port);
    const got: number[] = [];
    stream.on(
      'data',
      makeDatagramReader((data) => got.push(data.length)),
    );
    for (const length of [1, 0, 65_507, 5]) {
      const before = got.length;
      stream.write(frameDatagram(Buffer.alloc(length, 1)));
      while (got.length === before) await once(stream, 'data');
      expect(got.at(-1)).toBe(length);
    }
    stream.end();
    await once(stream, 'close');
  });

  it('survive a port without a listener; an unknown name is rejected', async () => {
    const { socket, port } = await echo();
    const gone = createSocket('udp4');
    gone.bind(0, '127.0.0.1');
    await once(gone, 'listening');
    const { port: nobody } = gone.address();
    gone.close();
    const stream = await connectDatagrams('127.0.0.1', nobody);
    stream.write(frameDatagram(Buffer.from('a')));
    const other = await connectDatagrams('127.0.0.1', port);
    other.write(frameDatagram(Buffer.from('b')));
    await once(socket, 'message');
    expect(stream.destroyed).toBe(false);
    stream.destroy();
    other.destroy();
    await expect(connectDatagrams('no-such-host.invalid', 53)).rejects.toMatchObject({
      code: 'target-not-found',
    });
  });

  it('from a flood are dropped while they are not read, and memory use stays bounded', async () => {
    const { socket, port } = await echo();
    const stream = await connectDatagrams('127.0.0.1', port);
    stream.write(frameDatagram(Buffer.from('hello')));
    const [, from] = await once(socket, 'message');
    let sent = 0;
    for (let round = 0; round < 40; round += 1)
      await Promise.all(
        Array.from({ length: 50 }, () => {
          sent += 1000;
          return new Promise((resolve) => socket.send(Buffer.alloc(1000), from.port, from.address, resolve));
        }),
      );
    expect(sent).toBeGreaterThan(stream.readableLength);
    expect(stream.readableLength).toBeLessThanOrEqual(maxWaitingBytes + 2000);
    stream.destroy();
  });
});
