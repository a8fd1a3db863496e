import { Buffer } from 'node:buffer';
import { once } from 'node:events';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { Duplex, PassThrough } from 'node:stream';
import { setImmediate as turn } from 'node:timers/promises';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { writeFairly } from './fair-write.ts';
import { coalesceWrites } from './ssh2.ts';

/** A stream that notes each write of its own, and when it has ended. */
function makeStream(session?: object) {
  const writes: Buffer[] = [];
  let ended = false;
  const stream = new Duplex({
    read() {},
    write(chunk: Buffer, _encoding, done) {
      writes.push(chunk);
      done();
    },
    final(done) {
      ended = true;
      done();
    },
  });
  if (session) writeFairly(Object.assign(stream, { session }));
  coalesceWrites(stream);
  return { stream, writes, ended: () => ended };
}

describe('writes that are made together', () => {
  test('a packet in three pieces is one write, in the turn that it was written in', async () => {
    const { stream, writes } = makeStream();
    for (const piece of ['leng', 'what it is', 'tag']) stream.write(Buffer.from(piece));
    expect(writes).toEqual([]);
    await turn();
    expect(writes.map(String)).toEqual(['lengwhat it istag']);
    stream.write(Buffer.from('the next'));
    await turn();
    expect(writes.map(String)).toEqual(['lengwhat it istag', 'the next']);
  });

  test('large packets are one each; in halves, where others of the session wait for their turn', async () => {
    const packets = () =>
      Array.from({ length: 3 }, () => [4, 32_784, 16].map((size) => Buffer.alloc(size, size)));
    const sizes = async (session?: object) => {
      const { stream, writes } = makeStream(session);
      for (const piece of packets().flat()) stream.write(piece);
      await turn();
      expect(Buffer.concat(writes).length).toBe(3 * 32_804);
      return { stream, largest: Math.max(...writes.map(({ length }) => length)), writes: writes.length };
    };
    expect(await sizes()).toMatchObject({ writes: 3 });
    const session = {};
    const first = await sizes(session);
    expect(first).toMatchObject({ writes: 3 });
    const second = await sizes(session);
    expect(second).toMatchObject({ writes: 9, largest: 16_384 });
    first.stream.destroy();
    second.stream.destroy();
    await turn();
    expect(await sizes(session)).toMatchObject({ writes: 3 });
  });

  test('what was written before the end goes before it, what comes after is dropped', async () => {
    const { stream, writes, ended } = makeStream();
    stream.write(Buffer.from('the last '));
    stream.write(Buffer.from('words'));
    stream.end();
    stream.write(Buffer.from('too late'));
    await turn();
    await turn();
    expect(writes.map(String)).toEqual(['the last words']);
    expect(ended()).toBe(true);
  });

  test('nothing is written to a stream that is gone', async () => {
    const { stream, writes } = makeStream();
    stream.write(Buffer.from('for nobody'));
    stream.destroy();
    await turn();
    expect(writes).toEqual([]);
  });

  test('any pieces in any turns arrive as they were, also where the reader is slow', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.record({ size: fc.integer({ min: 0, max: 70_000 }), turns: fc.boolean() }), {
          maxLength: 40,
        }),
        async (pieces) => {
          const stream = new PassThrough({ highWaterMark: 1024 });
          coalesceWrites(stream);
          const sent: Buffer[] = [];
          for (const [at, { size, turns }] of pieces.entries()) {
            const piece = Buffer.alloc(size, at);
            sent.push(piece);
            stream.write(piece);
            if (turns) await turn();
          }
          stream.end();
          const got: Buffer[] = [];
          for await (const chunk of stream) got.push(chunk as Buffer);
          expect(Buffer.concat(got).equals(Buffer.concat(sent))).toBe(true);
        },
      ),
      { numRuns: 50 },
    );
  });
});

test('a socket takes them as well', async () => {
  const server = createServer((socket: Socket) => {
    coalesceWrites(socket);
    socket.write(Buffer.from('a '));
    socket.write(Buffer.from('b'));
    socket.end();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { connect } = await import('node:net');
  const client = connect((server.address() as AddressInfo).port, '127.0.0.1');
  let text = '';
  for await (const chunk of client) text += String(chunk);
  expect(text).toBe('a b');
  server.close();
});
