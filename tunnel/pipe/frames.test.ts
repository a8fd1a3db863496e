import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { TunnelError } from '../errors.ts';
import {
  ackFrame,
  closeFrame,
  dataFrame,
  endFrame,
  type Frame,
  frameHeaderBytes,
  frameTypes,
  makeFrameParser,
  maxFramePayload,
  resumeFrame,
  writeFrameHeader,
} from './frames.ts';

const frame = fc.oneof(
  fc
    .tuple(fc.uint8Array({ minLength: 1, maxLength: 3000 }), fc.nat({ max: 2 ** 53 - 1 }))
    .map(([bytes, position]): Frame => ({ type: 'data', position, payload: Buffer.from(bytes) })),
  fc.nat({ max: 2 ** 53 - 1 }).map((position): Frame => ({ type: 'end', position })),
  fc.nat({ max: 2 ** 53 - 1 }).map((position): Frame => ({ type: 'ack', position })),
  fc
    .tuple(fc.uint8Array({ maxLength: 64 }), fc.nat({ max: 2 ** 53 - 1 }))
    .map(([bytes, position]): Frame => ({ type: 'resume', position, payload: Buffer.from(bytes) })),
  fc.stringMatching(/^[a-z0-9-]{1,64}$/).map((code): Frame => ({ type: 'close', code })),
);

function write(one: Frame): Buffer {
  switch (one.type) {
    case 'data':
      return dataFrame([one.payload], one.payload.length, one.position);
    case 'end':
      return endFrame(one.position);
    case 'ack':
      return ackFrame(one.position);
    case 'resume':
      return resumeFrame(one.payload, one.position);
    case 'close':
      return closeFrame(one.code);
  }
}

/** Cuts bytes at arbitrary places. */
function cut(bytes: Buffer, sizes: readonly number[]): Buffer[] {
  const chunks: Buffer[] = [];
  let at = 0;
  for (let i = 0; at < bytes.length; i++) {
    const size = sizes[i % sizes.length] ?? bytes.length;
    chunks.push(bytes.subarray(at, at + size));
    at += size;
  }
  return chunks;
}

function parse(chunks: readonly Buffer[]): Frame[] {
  const frames: Frame[] = [];
  const parser = makeFrameParser((one) => frames.push(one));
  for (const chunk of chunks) parser.push(chunk);
  return frames;
}

const sizes = fc.array(fc.integer({ min: 1, max: 5000 }), { minLength: 1, maxLength: 8 });

describe('frames', () => {
  it('come out as they went in, wherever the bytes are cut', () => {
    fc.assert(
      fc.property(fc.array(frame, { maxLength: 8 }), sizes, (frames, cuts) => {
        expect(parse(cut(Buffer.concat(frames.map(write)), cuts))).toEqual(frames);
      }),
    );
  });

  it('give frames or a named error for any bytes at all', () => {
    const bytes = fc.oneof(
      fc.uint8Array({ maxLength: 200 }),
      // Nearly right: a real frame with one byte changed.
      fc.tuple(frame, fc.nat(), fc.integer({ min: 0, max: 255 })).map(([one, at, byte]) => {
        const written = Buffer.from(write(one));
        written[at % Math.min(written.length, 40)] = byte;
        return written;
      }),
    );
    fc.assert(
      fc.property(fc.array(bytes, { maxLength: 4 }), sizes, (parts, cuts) => {
        try {
          parse(cut(Buffer.concat(parts.map((part) => Buffer.from(part))), cuts));
        } catch (error) {
          expect(error).toBeInstanceOf(TunnelError);
          expect((error as TunnelError).code).toMatch(/^frame-/);
        }
      }),
      { numRuns: 500 },
    );
  });

  it.each([
    ['frame-bad-version', 0, 2],
    ['frame-unknown-type', 1, 99],
    ['frame-bad-flags', 3, 1],
    ['frame-too-large', 4, 1],
    ['frame-malformed', 8, 1],
  ])('refuses a header with %s before waiting for its payload', (code, at, value) => {
    const header = Buffer.alloc(frameHeaderBytes);
    writeFrameHeader(header, frameTypes.data, 10, 0);
    header[at] = value;
    expect(() => parse([header])).toThrow(expect.objectContaining({ code }));
  });

  it('refuses data without bytes, and reasons that are not codes', () => {
    const empty = Buffer.alloc(frameHeaderBytes);
    writeFrameHeader(empty, frameTypes.data, 0, 0);
    expect(() => parse([empty])).toThrow(expect.objectContaining({ code: 'frame-malformed' }));
    expect(() => parse([closeFrame('\u001b[2J')])).toThrow(
      expect.objectContaining({ code: 'frame-malformed' }),
    );
  });

  it('carry the largest payload', () => {
    const payload = Buffer.alloc(maxFramePayload, 7);
    expect(parse(cut(dataFrame([payload], payload.length, 5), [1000]))).toEqual([
      { type: 'data', position: 5, payload },
    ]);
  });
});
