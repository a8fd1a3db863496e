import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { TunnelError } from '../errors.ts';
import { type Frame, frameHeaderBytes, makeFrameParser, maxFramePayload } from './frames.ts';
import { makePipeState, type PipeState } from './pipe-state.ts';

/** One direction of a path: bytes on their way, cut anywhere, in order or not at all. */
function makeWire(to: PipeState, delivered: Buffer[]) {
  let bytes: Buffer = Buffer.alloc(0);
  const parser = makeFrameParser((frame) => {
    const fresh = to.receive(frame as Exclude<Frame, { type: 'close' }>);
    if (fresh instanceof Buffer) delivered.push(Buffer.from(fresh));
  });
  return {
    put(frame: Buffer | undefined) {
      if (frame) bytes = Buffer.concat([bytes, frame]);
    },
    /** Lets so many bytes arrive. */
    arrive(count: number) {
      const chunk = bytes.subarray(0, count);
      bytes = bytes.subarray(count);
      parser.push(chunk);
    },
    /** Repeats bytes behind those in transit, as a malicious satellite would. */
    get waiting() {
      return bytes;
    },
  };
}

type Step =
  | { do: 'write'; at: 0 | 1; bytes: Uint8Array }
  | { do: 'send'; at: 0 | 1 }
  | { do: 'ack'; at: 0 | 1 }
  | { do: 'arrive'; at: 0 | 1; count: number }
  | { do: 'cut'; late: [number, number]; acks: [boolean, boolean] };

const end = fc.constantFrom(0 as const, 1 as const);
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('write' as const),
      at: end,
      bytes: fc.oneof(
        { weight: 5, arbitrary: fc.uint8Array({ minLength: 1, maxLength: 300 }) },
        // Large enough for memory to be used again.
        fc
          .tuple(fc.integer({ min: 1, max: 100_000 }), fc.nat({ max: 255 }))
          .map(([n, v]) => new Uint8Array(n).fill(v)),
      ),
    }),
  },
  { weight: 8, arbitrary: fc.record({ do: fc.constant('send' as const), at: end }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('ack' as const), at: end }) },
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constant('arrive' as const),
      at: end,
      count: fc.oneof(fc.nat({ max: 700 }), fc.nat({ max: 80_000 })),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('cut' as const),
      late: fc.tuple(fc.nat({ max: 900 }), fc.nat({ max: 900 })),
      acks: fc.tuple(fc.boolean(), fc.boolean()),
    }),
  },
);

describe('the state of a pipe', () => {
  it('delivers the same bytes whatever is lost, repeated and cut, over any number of paths', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 120 }), (steps) => {
        const ends = [makePipeState(), makePipeState()] as const;
        const written: [Buffer[], Buffer[]] = [[], []];
        const delivered: [Buffer[], Buffer[]] = [[], []];
        /** wires[0] carries from end 0 to end 1. */
        const wires = () => [makeWire(ends[1], delivered[1]), makeWire(ends[0], delivered[0])] as const;
        let path = wires();
        const resume = (late = [0, 0], acks = [false, false]) => {
          // Both say where they stand. A path that is given up by choice still carries some both ways after that.
          const said = [ends[0].expected, ends[1].expected] as const;
          for (const at of [0, 1] as const) {
            path[at].arrive(late[at]!);
            if (acks[at]) path[at].put(ends[at].ack());
          }
          for (const at of [0, 1] as const) path[at].arrive(late[at]!);
          path = wires();
          ends[0].rewind(said[1], said[0]);
          ends[1].rewind(said[0], said[1]);
        };
        for (const one of steps) {
          if (one.do === 'write') {
            ends[one.at].append([Buffer.from(one.bytes)]);
            written[one.at].push(Buffer.from(one.bytes));
          } else if (one.do === 'send') path[one.at].put(ends[one.at].next());
          else if (one.do === 'ack') path[one.at].put(ends[one.at].ack());
          else if (one.do === 'arrive') path[one.at].arrive(one.count);
          else if (one.do === 'cut') resume(one.late, one.acks);
        }
        // Then the network is good for once.
        resume();
        for (const at of [0, 1] as const) ends[at].end();
        for (let round = 0; round < 3; round++) {
          for (const at of [0, 1] as const) {
            while (ends[at].unsent) path[at].put(ends[at].next());
            path[at].put(ends[at].ack());
            path[at].arrive(path[at].waiting.length);
          }
        }
        for (const at of [0, 1] as const) {
          expect(Buffer.concat(delivered[1 - at]!).equals(Buffer.concat(written[at]))).toBe(true);
          expect(ends[at]).toMatchObject({ ended: true, finished: true, bufferedBytes: 0, owed: 0 });
        }
      }),
      { numRuns: 500 },
    );
  });

  it('counts what it holds: little writes cost what they cost', () => {
    const state = makePipeState();
    for (let at = 0; at < 1000; at++) state.append([Buffer.from('x')]);
    expect(state.bufferedBytes).toBeGreaterThan(200_000);
    while (state.unsent) state.next();
    state.receive({ type: 'ack', position: 1000 });
    expect(state.bufferedBytes).toBe(0);
    state.append([Buffer.alloc(maxFramePayload + 1)]);
    expect([state.next()!.length > maxFramePayload, state.next()!.length < 100]).toEqual([true, true]);
  });

  it('sends an ACK in front of what it sends, once', () => {
    const state = makePipeState();
    state.receive({ type: 'data', position: 0, payload: Buffer.from('abc') });
    expect(state.owed).toBe(3);
    state.append([Buffer.from('x')]);
    state.append([Buffer.from('y')]);
    const frames: Frame[] = [];
    const parser = makeFrameParser((frame) => frames.push(frame));
    parser.push(state.next()!);
    parser.push(state.next()!);
    expect(frames.map((frame) => frame.type)).toEqual(['ack', 'data', 'data']);
    expect(frames[0]).toMatchObject({ position: 3 });
    expect(state.owed).toBe(0);
  });

  const x = Buffer.from('x');
  it.each<[string, Parameters<PipeState['receive']>[0][]]>([
    ['a gap', [{ type: 'data', position: 1, payload: x }]],
    ['an end elsewhere', [{ type: 'end', position: 9 }]],
    [
      'more after the end',
      [
        { type: 'end', position: 0 },
        { type: 'data', position: 0, payload: x },
      ],
    ],
    ['an ACK of what was never sent', [{ type: 'ack', position: 4 }]],
    ['an ACK within a frame', [{ type: 'ack', position: 1 }]],
    ['RESUME in the middle', [{ type: 'resume', position: 0, payload: x }]],
  ])('refuses %s', (_name, frames) => {
    const state = makePipeState();
    state.append([Buffer.from('abc')]);
    state.next();
    expect(() => frames.map((frame) => state.receive(frame))).toThrow(TunnelError);
  });

  it('refuses a new path to an end that stands where it cannot stand', () => {
    const state = makePipeState();
    state.append([Buffer.from('abc')]);
    state.append([Buffer.from('def')]);
    state.next();
    expect(() => state.rewind(6, 0)).toThrow(/never sent/);
    state.next();
    state.receive({ type: 'ack', position: 3 });
    expect(() => state.rewind(5, 0)).toThrow(/part of a frame/);
    // It said so before it acknowledged more over the old path.
    state.rewind(0, 0);
    expect(state.next()!.length).toBe(frameHeaderBytes + 3);
    expect(state.unsent).toBe(false);
  });
});
