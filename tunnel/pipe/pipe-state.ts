import { TunnelError } from '../errors.ts';
import {
  ackFrame,
  type Frame,
  frameHeaderBytes,
  frameTypes,
  maxFramePayload,
  writeFrameHeader,
} from './frames.ts';

/**
 * What one end of a pipe knows, without any path, stream or timer: pipe.ts moves the bytes. Each direction's
 * bytes are numbered from 0, and its END takes one number more. Sent frames stay here until the other end has
 * acknowledged them; on a new path the other end says where it stands, and all above is sent again.
 *
 *     append ──▶ queue: │ sent, not acknowledged │ not sent on this path │
 *                       ▲ acknowledged           ▲ next()
 *     rewind(position): drops what is below, and all the rest is "not sent" again
 */
export interface PipeState {
  /** Takes bytes to be sent, in frames as few and as full as may be. Copies them. */
  append(chunks: readonly Buffer[]): void;
  /** This direction ends here. */
  end(): void;
  /** The next frame to send on this path, with an ACK in front where one is owed. */
  next(): Buffer | undefined;
  /** The position after the frame that `next` gave last. */
  readonly given: number;
  /** The other end has everything below. */
  readonly acknowledged: number;
  /** True while `next` has something. */
  readonly unsent: boolean;
  /** An ACK of its own; nothing is owed after it. */
  ack(): Buffer;
  /**
   * Takes a frame that came in. Gives the bytes that are new in it, `end` when the other direction has ended,
   * or null where there is nothing new (ACKs, repetitions). Throws `frame-…` for what no pipe sends.
   */
  receive(frame: Exclude<Frame, { type: 'close' }>): Buffer | 'end' | null;
  /**
   * A new path: the other end has everything below `position`, or more, when it was still taking from the old path
   * as it said so; it was told that this end expects `said`. Throws when that cannot be.
   */
  rewind(position: number, announced: number): void;
  /** Bytes received and taken for sending since the start. */
  readonly received: number;
  readonly sent: number;
  /** The position that is expected next: what an ACK says. */
  readonly expected: number;
  /** How many positions have come since the last ACK. */
  readonly owed: number;
  /** The other direction has ended, all of it received. */
  readonly ended: boolean;
  /** This direction has ended and the other end has all of it. */
  readonly finished: boolean;
  /** What is kept for sending again, in bytes of memory: frames count with their overhead. */
  readonly bufferedBytes: number;
}

/** What a frame costs besides its payload: its header twice, a Buffer object and an entry here. */
const frameOverhead = 200;

/**
 * Frames of at least this size are built in memory that is used again once they are acknowledged: to allocate
 * it each time costs a tenth of the throughput. At most so many are kept, and none by a pipe at rest.
 */
const reusedFrom = 48 * 1024;
const spareBytes = 2 * frameHeaderBytes + maxFramePayload;
const maxSpares = 16;

const costOf = (memory: Buffer) => (memory.length < reusedFrom ? memory.length : spareBytes) + frameOverhead;

interface Entry {
  /** Room for an ACK's header, then the frame. */
  memory: Buffer;
  /** The position after it. */
  end: number;
}

export function makePipeState(): PipeState {
  let received = 0;
  let ended = false;
  /** What the other end has last been told. */
  let announcedPosition = 0;

  let sent = 0;
  let ending = false;
  let acknowledged = 0;
  /** The highest position that was ever put on a path: beyond it nothing can be acknowledged. */
  let reached = 0;
  let given = 0;
  let queue: Entry[] = [];
  /** Index of the first entry that is not acknowledged, and of the first not sent on this path. */
  let first = 0;
  let unsent = 0;
  let bufferedBytes = 0;
  let spares: ArrayBuffer[] = [];

  const expected = () => received + (ended ? 1 : 0);

  function push(memory: Buffer, end: number): void {
    queue.push({ memory, end });
    bufferedBytes += costOf(memory);
  }

  function appendFrame(parts: readonly Buffer[], length: number): void {
    const memory = memoryFor(2 * frameHeaderBytes + length);
    const frame = memory.subarray(frameHeaderBytes);
    writeFrameHeader(frame, frameTypes.data, length, sent);
    let at = frameHeaderBytes;
    for (const part of parts) at += part.copy(frame, at);
    sent += length;
    push(memory, sent);
  }

  function memoryFor(size: number): Buffer {
    if (size < reusedFrom) return Buffer.allocUnsafe(size);
    const spare = spares.pop() ?? Buffer.allocUnsafeSlow(spareBytes).buffer;
    return Buffer.from(spare, 0, size);
  }

  /** Forgets what the other end has. */
  function acknowledge(position: number): void {
    if (position > reached) throw new TunnelError('frame-malformed', 'acknowledges what was never sent');
    if (position <= acknowledged) return;
    while (first < queue.length && queue[first]!.end <= position) {
      const { memory } = queue[first]!;
      bufferedBytes -= costOf(memory);
      // What has come at the other end has left this one. (A path that was given up may still hold it and send
      // what is written there next: nobody listens to it.)
      if (memory.length >= reusedFrom && spares.length < maxSpares) spares.push(memory.buffer as ArrayBuffer);
      first++;
    }
    const before = first === 0 ? acknowledged : queue[first - 1]!.end;
    // Whoever takes a frame takes all of it.
    if (before !== position) throw new TunnelError('frame-malformed', 'acknowledges a part of a frame');
    acknowledged = position;
    unsent = Math.max(unsent, first);
    // Now and then, so that it costs nothing a frame.
    if (first >= 64 || first === queue.length) {
      queue = queue.slice(first);
      unsent -= first;
      first = 0;
    }
    if (queue.length === 0) spares = [];
  }

  return {
    append(chunks) {
      let parts: Buffer[] = [];
      let length = 0;
      for (let chunk of chunks) {
        while (chunk.length > 0) {
          const part = chunk.subarray(0, maxFramePayload - length);
          parts.push(part);
          length += part.length;
          chunk = chunk.subarray(part.length);
          if (length < maxFramePayload) continue;
          appendFrame(parts, length);
          parts = [];
          length = 0;
        }
      }
      if (length > 0) appendFrame(parts, length);
    },
    end() {
      if (ending) return;
      ending = true;
      const memory = Buffer.alloc(2 * frameHeaderBytes);
      writeFrameHeader(memory.subarray(frameHeaderBytes), frameTypes.end, 0, sent);
      push(memory, sent + 1);
    },
    next() {
      const entry = queue[unsent];
      if (!entry) return undefined;
      unsent++;
      given = entry.end;
      reached = Math.max(reached, given);
      if (announcedPosition === expected()) return entry.memory.subarray(frameHeaderBytes);
      announcedPosition = expected();
      writeFrameHeader(entry.memory, frameTypes.ack, 0, announcedPosition);
      return entry.memory;
    },
    get acknowledged() {
      return acknowledged;
    },
    get given() {
      return given;
    },
    get unsent() {
      return unsent < queue.length;
    },
    ack() {
      announcedPosition = expected();
      return ackFrame(announcedPosition);
    },
    receive(frame) {
      switch (frame.type) {
        case 'ack':
          acknowledge(frame.position);
          return null;
        case 'data': {
          const end = frame.position + frame.payload.length;
          if (frame.position > received || (ended && end > received)) {
            throw new TunnelError(
              'frame-out-of-order',
              ended ? 'more after the end' : `${frame.position} where ${received} was due`,
            );
          }
          if (end <= received) return null;
          const fresh = frame.payload.subarray(received - frame.position);
          received = end;
          return fresh;
        }
        case 'end':
          if (frame.position !== received)
            throw new TunnelError('frame-out-of-order', `the end at ${frame.position} of ${received}`);
          if (ended) return null;
          ended = true;
          return 'end';
        default:
          throw new TunnelError('frame-malformed', 'a new path is offered in the middle');
      }
    },
    rewind(position, announced) {
      acknowledge(position);
      unsent = first;
      announcedPosition = announced;
    },
    get received() {
      return received;
    },
    get sent() {
      return sent;
    },
    get expected() {
      return expected();
    },
    get owed() {
      return expected() - announcedPosition;
    },
    get ended() {
      return ended;
    },
    get finished() {
      return ending && acknowledged === sent + 1;
    },
    get bufferedBytes() {
      return bufferedBytes;
    },
  };
}
