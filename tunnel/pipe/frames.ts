import { TunnelError } from '../errors.ts';

/**
 * The pipe's frames, version 1. README.md draws the header: version u8, type u8, flags u16 (0), payload
 * length u32, position u64; big-endian. The position of DATA is that of its first byte in this direction
 * since the pipe began. ACK and RESUME carry the next position that their sender expects, where END counts
 * as one position of its own.
 */
export const frameVersion = 1;
export const frameHeaderBytes = 16;

/**
 * A frame holds at most this many bytes. Large enough that the header and the WebSocket message around it
 * are noise, small enough that a satellite copying one message at a time stays fair between sessions.
 */
export const maxFramePayload = 64 * 1024;

export const frameTypes = {
  /** Bytes at a position. */
  data: 1,
  /** This direction ends at the position. No payload. */
  end: 2,
  /** The pipe is over in both directions; the payload is the reason's code. */
  close: 3,
  /** All below the position has come. No payload. */
  ack: 4,
  /** A new path for a pipe (resume.ts): before anything else. */
  resume: 5,
  /** A sign of life where the path itself has none; whoever parses passes it over. */
  beat: 6,
} as const;
const known = new Set<number>(Object.values(frameTypes));

/** A reason's code on the wire. */
const maxCloseReason = 64;
/** The longest of resume.ts's payloads is 49 bytes. */
const maxResume = 64;
const limits: Record<number, number> = {
  [frameTypes.data]: maxFramePayload,
  [frameTypes.close]: maxCloseReason,
  [frameTypes.resume]: maxResume,
};

export type Frame =
  | { type: 'data'; position: number; payload: Buffer }
  | { type: 'end'; position: number }
  | { type: 'close'; code: string }
  | { type: 'ack'; position: number }
  | { type: 'resume'; position: number; payload: Buffer };

/** Writes a header into the first 16 bytes of `into`. */
export function writeFrameHeader(into: Buffer, type: number, length: number, position: number): void {
  into[0] = frameVersion;
  into[1] = type;
  into[2] = 0;
  into[3] = 0;
  into.writeUInt32BE(length, 4);
  // Positions stay below 2^53: nine petabytes through one pipe.
  into.writeUInt32BE(Math.floor(position / 2 ** 32), 8);
  into.writeUInt32BE(position % 2 ** 32, 12);
}

/** The DATA frame of these bytes (at most maxFramePayload together), in one buffer. */
export function dataFrame(chunks: readonly Buffer[], length: number, position: number): Buffer {
  const frame = Buffer.allocUnsafe(frameHeaderBytes + length);
  writeFrameHeader(frame, frameTypes.data, length, position);
  let at = frameHeaderBytes;
  for (const chunk of chunks) at += chunk.copy(frame, at);
  return frame;
}

export function endFrame(position: number): Buffer {
  const frame = Buffer.alloc(frameHeaderBytes);
  writeFrameHeader(frame, frameTypes.end, 0, position);
  return frame;
}

export function ackFrame(position: number): Buffer {
  const frame = Buffer.alloc(frameHeaderBytes);
  writeFrameHeader(frame, frameTypes.ack, 0, position);
  return frame;
}

export function resumeFrame(payload: Buffer, position: number): Buffer {
  const frame = Buffer.alloc(frameHeaderBytes + payload.length);
  writeFrameHeader(frame, frameTypes.resume, payload.length, position);
  payload.copy(frame, frameHeaderBytes);
  return frame;
}

export function closeFrame(code: string): Buffer {
  const payload = Buffer.from(code.slice(0, maxCloseReason), 'latin1');
  const frame = Buffer.alloc(frameHeaderBytes + payload.length);
  writeFrameHeader(frame, frameTypes.close, payload.length, 0);
  payload.copy(frame, frameHeaderBytes);
  return frame;
}

/** What a BEAT says, in the place of a position. One of an earlier release has `old`: it beats as often at rest. */
export const beats = { old: 0, rests: 1, asks: 2 } as const;
const beatFrames = Object.values(beats).map((says) => {
  const frame = Buffer.alloc(frameHeaderBytes);
  writeFrameHeader(frame, frameTypes.beat, 0, says);
  return frame;
});

/** The same one each time: not to be written to. */
export const beatFrame = (says: number = beats.rests): Buffer => beatFrames[says]!;

/** What the chunk says when it is one BEAT and nothing else; null of anything else. */
export function readBeat(chunk: Buffer): number | null {
  const says = chunk.length === frameHeaderBytes ? beatFrames.findIndex((each) => each.equals(chunk)) : -1;
  return says < 0 ? null : says;
}

/**
 * Parses a stream of bytes, cut anywhere, into frames. `push` calls `onFrame` for each complete one and
 * throws a TunnelError `frame-…` at the first that is malformed; after that the parser is spent. Payloads
 * are views of the pushed buffer where the frame lies in one piece. Holds at most one frame.
 */
export function makeFrameParser(onFrame: (frame: Frame) => void): { push(chunk: Buffer): void } {
  let held: Buffer[] = [];
  let heldBytes = 0;
  /** How many bytes must be there before looking again makes sense. */
  let wanted = frameHeaderBytes;

  return {
    push(chunk) {
      let buffer = chunk;
      if (heldBytes > 0) {
        held.push(chunk);
        heldBytes += chunk.length;
        if (heldBytes < wanted) return;
        buffer = Buffer.concat(held, heldBytes);
        held = [];
        heldBytes = 0;
      }
      let at = 0;
      while (buffer.length - at >= frameHeaderBytes) {
        const length = checkHeader(buffer, at);
        const size = frameHeaderBytes + length;
        if (buffer.length - at < size) {
          wanted = size;
          hold(buffer.subarray(at));
          return;
        }
        const frame = buffer[at + 1] === frameTypes.beat ? null : readFrame(buffer, at, length);
        at += size;
        if (frame) onFrame(frame);
      }
      wanted = frameHeaderBytes;
      if (at < buffer.length) hold(buffer.subarray(at));
    },
  };

  function hold(rest: Buffer): void {
    held.push(rest);
    heldBytes = rest.length;
  }
}

/** Checks what can be told from the header alone, so that a bad length is never waited for. */
function checkHeader(buffer: Buffer, at: number): number {
  const version = buffer[at]!;
  if (version !== frameVersion) throw new TunnelError('frame-bad-version', `version ${version}`);
  const type = buffer[at + 1]!;
  if (!known.has(type)) throw new TunnelError('frame-unknown-type', `type ${type}`);
  if (buffer[at + 2] !== 0 || buffer[at + 3] !== 0) throw new TunnelError('frame-bad-flags');
  const length = buffer.readUInt32BE(at + 4);
  if (length > (limits[type] ?? 0)) throw new TunnelError('frame-too-large', `${length} bytes`);
  if (buffer.readUInt32BE(at + 8) >= 2 ** 21) throw new TunnelError('frame-malformed', 'position too large');
  return length;
}

function readFrame(buffer: Buffer, at: number, length: number): Frame {
  const position = buffer.readUInt32BE(at + 8) * 2 ** 32 + buffer.readUInt32BE(at + 12);
  const payload = buffer.subarray(at + frameHeaderBytes, at + frameHeaderBytes + length);
  switch (buffer[at + 1]) {
    case frameTypes.data:
      if (length === 0) throw new TunnelError('frame-malformed', 'no data');
      return { type: 'data', position, payload };
    case frameTypes.end:
      return { type: 'end', position };
    case frameTypes.ack:
      return { type: 'ack', position };
    case frameTypes.resume:
      return { type: 'resume', position, payload };
    default: {
      const code = payload.toString('latin1');
      // It ends up in logs and on terminals: nothing but the letters of a code may pass.
      if (!/^[a-z0-9-]+$/.test(code)) throw new TunnelError('frame-malformed', 'not a reason');
      return { type: 'close', code };
    }
  }
}
