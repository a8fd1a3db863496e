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
 * The state of one end of a pipe, without paths, streams or timers; pipe.ts moves the bytes. The bytes of each
 * direction are numbered from 0, and END takes one more number. Sent frames stay buffered until they are acknowledged;
 * on a new path the other end reports its position, and everything above it is sent again.
 *
 *     append ──▶ queue: │ sent, not acknowledged │ not sent on this path │
 *                       ▲ acknowledged           ▲ next()
 *     rewind(position): drops everything below and marks the rest as not sent
 */
export interface PipeState {
  /** Copies bytes to be sent into as few frames as possible. */
  append(chunks: readonly Buffer[]): void;
  /** Ends this direction. */
  end(): void;
  /** The next frame to send on this path, preceded by an ACK if one is due. */
  next(): Buffer | undefined;
  /** The position after the last frame returned by `next`. */
  readonly given: number;
  /** The other end has received everything below this position. */
  readonly acknowledged: number;
  /** True while `next` has a frame. */
  readonly unsent: boolean;
  /** A standalone ACK. */
  ack(): Buffer;
  /**
   * Processes a received frame. Returns its new bytes, `end` when the other direction has ended, or null if there is
   * nothing new (ACKs, repetitions). Throws `frame-…` on protocol violations.
   */
  receive(frame: Exclude<Frame, { type: 'close' }>): Buffer | 'end' | null;
  /**
   * Moves to a new path. The other end has received everything below `position`, or more if it still received from the
   * old path after it reported that; it was told that this end expects `announced`. Throws if that is impossible.
   */
  rewind(position: number, announced: number): void;
  /** Bytes received, and accepted for sending, since the start. */
  readonly received: number;
  readonly sent: number;
  /** The position expected next, as carried by an ACK. */
  readonly expected: number;
  /** Positions received since the last ACK. */
  readonly owed: number;
  /** The other direction has ended and was received in full. */
  readonly ended: boolean;
  /** This direction has ended and was acknowledged in full. */
  readonly finished: boolean;
  /** Memory used by frames that may have to be sent again, including overhead. */
  readonly bufferedBytes: number;
}

/** Memory per frame besides its payload: two headers, a Buffer object and a queue entry. */
const frameOverhead = 200;

/**
 * Memory of frames of at least this size is reused once they are acknowledged; allocating each time costs a tenth of
 * the throughput. Up to `maxSpares` blocks are kept, and none while the pipe is idle.
 */
const reusedFrom = 48 * 1024;
const spareBytes = 2 * frameHeaderBytes + maxFramePayload;
const maxSpares = 16;

const costOf = (memory: Buffer) => (memory.length < reusedFrom ? memory.length : spareBytes) + frameOverhead;

interface Entry {
  /** Space for an ACK header, followed by the frame. */
  memory: Buffer;
  /** The position after it. */
  end: number;
}

export function makePipeState(): PipeState {
  let received = 0;
  let ended = false;
  /** The position last sent to the other end in an ACK. */
  let announcedPosition = 0;

  let sent = 0;
  let ending = false;
  let acknowledged = 0;
  /** The highest position ever sent; nothing beyond it can be acknowledged. */
  let reached = 0;
  let given = 0;
  let queue: Entry[] = [];
  /** Index of the first unacknowledged entry, and of the first not yet sent on this path. */
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

  /** Drops frames that the other end has received. */
  function acknowledge(position: number): void {
    if (position > reached) throw new TunnelError('frame-malformed', 'acknowledges data that was never sent');
    if (position <= acknowledged) return;
    while (first < queue.length && queue[first]!.end <= position) {
      const { memory } = queue[first]!;
      bufferedBytes -= costOf(memory);
      // Acknowledged data has left this process. (An abandoned path may still reference the memory and send garbage
      // later, but nobody reads from it.)
      if (memory.length >= reusedFrom && spares.length < maxSpares) spares.push(memory.buffer as ArrayBuffer);
      first++;
    }
    const before = first === 0 ? acknowledged : queue[first - 1]!.end;
    // Frames are received as a whole.
    if (before !== position) throw new TunnelError('frame-malformed', 'acknowledges part of a frame');
    acknowledged = position;
    unsent = Math.max(unsent, first);
    // Amortized, so that it costs next to nothing per frame.
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
              ended ? 'data after the end' : `got position ${frame.position}, expected ${received}`,
            );
          }
          if (end <= received) return null;
          const fresh = frame.payload.subarray(received - frame.position);
          received = end;
          return fresh;
        }
        case 'end':
          if (frame.position !== received)
            throw new TunnelError(
              'frame-out-of-order',
              `END at position ${frame.position}, expected ${received}`,
            );
          if (ended) return null;
          ended = true;
          return 'end';
        default:
          throw new TunnelError('frame-malformed', 'unexpected RESUME');
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
