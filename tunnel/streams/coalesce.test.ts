import { PassThrough, Writable } from 'node:stream';
import { setImmediate as turn } from 'node:timers/promises';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { pipeCoalesced } from './coalesce.ts';

/** Takes several chunks in one call, as a socket does, a little later; notes each call. */
function makeOutput() {
  const calls: Buffer[] = [];
  const take = (chunk: Buffer, done: () => void) => {
    calls.push(chunk);
    setImmediate(done);
  };
  const output = new Writable({
    highWaterMark: 65_536,
    write: (chunk: Buffer, _encoding, done) => take(chunk, done),
    writev: (entries, done) => take(Buffer.concat(entries.map(({ chunk }) => chunk as Buffer)), done),
  });
  return { output, calls };
}

test('what comes in one turn goes out in one call, a few bytes at once', async () => {
  const from = new PassThrough();
  const { output, calls } = makeOutput();
  pipeCoalesced(from, output);
  from.write(Buffer.from('a key'));
  await turn();
  expect(calls.map(String)).toEqual(['a key']);
  await turn();
  const pieces = [16_375, 9, 16_366, 18].map((size) => Buffer.alloc(size, size));
  // As HTTP/2 gives them: one after the other, before anything else runs.
  for (const piece of pieces) from.emit('data', piece);
  await turn();
  expect(calls.length).toBe(2);
  expect(calls[1]!.equals(Buffer.concat(pieces))).toBe(true);
});

test('any chunks arrive as they were, in order, and the end after them', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.record({ size: fc.integer({ min: 1, max: 40_000 }), turns: fc.boolean() }), {
        maxLength: 30,
      }),
      async (pieces) => {
        const from = new PassThrough();
        const { output, calls } = makeOutput();
        pipeCoalesced(from, output);
        const sent: Buffer[] = [];
        for (const [at, { size, turns }] of pieces.entries()) {
          const piece = Buffer.alloc(size, at + 1);
          sent.push(piece);
          from.write(piece);
          if (turns) await turn();
        }
        from.end();
        await new Promise((resolve) => output.once('finish', resolve));
        expect(Buffer.concat(calls).equals(Buffer.concat(sent))).toBe(true);
      },
    ),
    { numRuns: 50 },
  );
});
