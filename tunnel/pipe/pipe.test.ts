import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { setImmediate as turn } from 'node:timers/promises';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { TunnelError } from '../errors.ts';
import { makePathPair } from '../paths/pair.ts';
import { dataFrame, endFrame } from './frames.ts';
import { makePipe, type Pipe } from './pipe.ts';

function makePipes() {
  const [left, right] = makePathPair();
  return { left, right, a: makePipe({ path: left }), b: makePipe({ path: right }) };
}

async function readAll(pipe: Pipe): Promise<Buffer> {
  const chunks: Buffer[] = [];
  pipe.on('data', (chunk: Buffer) => chunks.push(chunk));
  await once(pipe, 'end');
  return Buffer.concat(chunks);
}

const failure = (pipe: Pipe) => once(pipe, 'error').then(([error]) => error as TunnelError);

describe('a pipe', () => {
  it('delivers the same bytes both ways, however they are written', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.uint8Array({ minLength: 1, maxLength: 200_000 }), { maxLength: 6 }),
        async (writes) => {
          const { a, b } = makePipes();
          const sent = Buffer.concat(writes);
          b.pipe(b);
          for (const bytes of writes) a.write(bytes);
          a.end();
          expect((await readAll(a)).equals(sent)).toBe(true);
          expect([a.sent, a.received]).toEqual([sent.length, sent.length]);
        },
      ),
      { numRuns: 20 },
    );
  });

  it('can be half-closed: the other direction stays open', async () => {
    const { a, b } = makePipes();
    a.end('question');
    expect(String(await readAll(b))).toBe('question');
    b.end('answer');
    expect(String(await readAll(a))).toBe('answer');
  });

  it('buffers a bounded amount while the reader pauses, and delivers everything once it reads', async () => {
    const { a, b, left } = makePipes();
    const block = randomBytes(1024 * 1024);
    const sent = createHash('sha256');
    let written = 0;
    const writing = (async () => {
      for (let i = 0; i < 16; i++) {
        sent.update(block);
        const more = a.write(block);
        written += block.length;
        if (!more) await once(a, 'drain');
      }
      a.end();
    })();
    // Nothing moves once every buffer is full, nor many turns later.
    for (let i = 0; i < 200; i++) await turn();
    expect(written).toBeLessThanOrEqual(2 * block.length);
    expect(left.queued + b.readableLength).toBeLessThan(2 * 1024 * 1024);
    const got = createHash('sha256');
    b.on('data', (chunk: Buffer) => got.update(chunk));
    await once(b, 'end');
    await writing;
    expect(got.digest('hex')).toBe(sent.digest('hex'));
  });

  it.each([
    ['frame-bad-version', Buffer.from('GET / HTTP/1.1\r\n\r\n')],
    ['frame-out-of-order', dataFrame([Buffer.from('x')], 1, 1)],
    ['frame-out-of-order', endFrame(9)],
    ['frame-out-of-order', Buffer.concat([endFrame(0), dataFrame([Buffer.from('x')], 1, 0)])],
  ])('ends with %s for bytes that no pipe sends, and tells the other end', async (code, bytes) => {
    const [left, right] = makePathPair();
    const pipe = makePipe({ path: left });
    pipe.resume();
    const told: Buffer[] = [];
    const closed = new Promise<TunnelError | null>((resolve) =>
      right.start({ data: (chunk) => told.push(chunk), drain() {}, closed: resolve }),
    );
    right.send(bytes);
    expect(await failure(pipe)).toMatchObject({ code });
    expect(await closed).toBeNull();
    expect(Buffer.concat(told).subarray(-code.length).toString()).toBe(code);
  });

  it('accepts any bytes: invalid ones end it with a named reason', async () => {
    const header = fc
      .tuple(
        fc.integer({ min: 1, max: 6 }),
        fc.nat({ max: 40 }),
        fc.nat({ max: 12 }),
        fc.uint8Array({ maxLength: 60 }),
      )
      .map(([type, length, position, rest]) => {
        const bytes = Buffer.alloc(16);
        bytes.set([1, type]);
        bytes.writeUInt32BE(length, 4);
        bytes.writeUInt32BE(position, 12);
        return Buffer.concat([bytes, Buffer.from(rest)]);
      });
    const anything = fc.uint8Array({ maxLength: 60 }).map((bytes) => Buffer.from(bytes));
    await fc.assert(
      fc.asyncProperty(fc.array(fc.oneof(header, anything), { maxLength: 8 }), async (chunks) => {
        const [left, right] = makePathPair();
        const pipe = makePipe({ path: left });
        const ended = new Promise<Error | null>((resolve) => {
          pipe.once('error', resolve);
          pipe.once('close', () => resolve(null));
        });
        pipe.enableResume({ waitMs: 1_000, lost: () => pipe.destroy() });
        pipe.resume();
        pipe.write('something to acknowledge');
        right.start({ data() {}, drain() {}, closed() {} });
        for (const chunk of chunks) right.send(chunk);
        right.close();
        const error = await ended;
        if (error) expect(error).toBeInstanceOf(TunnelError);
        expect(pipe.destroyed).toBe(true);
      }),
      { numRuns: 1_000, interruptAfterTimeLimit: 5_000 },
    );
  });

  it('ends with the reason of its path, and with the one that the other end gives', async () => {
    const cut = makePipes();
    const both = Promise.all([failure(cut.a), failure(cut.b)]);
    cut.left.cut(new TunnelError('satellite-restarted'));
    expect((await both).map((error) => error.code)).toEqual(['satellite-restarted', 'satellite-restarted']);

    const told = makePipes();
    const reason = failure(told.b);
    told.a.on('error', () => {});
    told.a.destroy(new TunnelError('agent-closed'));
    expect((await reason).code).toBe('agent-closed');
  });

  it('is broken, not ended, when the path closes in the middle', async () => {
    const { a, b, left } = makePipes();
    a.on('error', () => {});
    a.write('half');
    const reason = failure(b);
    b.resume();
    left.close();
    expect((await reason).code).toBe('pipe-closed');
  });
});
