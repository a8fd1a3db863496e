import { TunnelError } from '../errors.ts';

/**
 * The pipe's frame format, version 1. The header (drawn in README.md): version u8, type u8, flags u16 (0), payload
 * length u32, position u64; big-endian. DATA's position is the offset of its first byte in this direction. ACK and
 * RESUME carry the position that their sender expects next. END counts as one position.
 */
const frameVersion = 1;
export const frameHeaderBytes = 16;

/**
 * Large enough that the header and the WebSocket message around it are negligible, small enough that a satellite
 * copying one message at a time stays fair between sessions.
 */
export const maxFramePayload = 64 * 1024;

export const frameTypes = {
  data: 1,
  /** This direction ends at the position. No payload. */
  end: 2,
  /** The pipe is over in both directions; the payload is the error code. */
  close: 3,
  /** Everything below the position was received. No payload. */
  ack: 4,
  /** Moves a pipe to this path (resume.ts); precedes everything else. */
  resume: 5,
  /** Heartbeat of paths that have none themselves; parsers skip it. */
  beat: 6,
} as const;
const known = new Set<number>(Object.values(frameTypes));

const maxCloseReason = 64;
/** The largest payload in resume.ts is 49 bytes. */
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
  // Positions stay below 2^53, nine petabytes.
  into.writeUInt32BE(Math.floor(position / 2 ** 32), 8);
  into.writeUInt32BE(position % 2 ** 32, 12);
}

/** Builds a DATA frame of at most maxFramePayload bytes in one buffer. */
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

/**
 * The kind of a BEAT, sent in place of a position. `idles`: the sender beats less often when idle; `legacy`, of an
 * earlier release, does not. `request` asks for a beat in return.
 */
export const beats = { legacy: 0, idles: 1, request: 2 } as const;
const beatFrames = Object.values(beats).map((kind) => {
  const frame = Buffer.alloc(frameHeaderBytes);
  writeFrameHeader(frame, frameTypes.beat, 0, kind);
  return frame;
});

/** Returns a shared buffer: do not modify it. */
export const beatFrame = (kind: number = beats.idles): Buffer => beatFrames[kind]!;

/** Returns the kind of BEAT if the chunk is exactly one BEAT frame, else null. */
export function readBeat(chunk: Buffer): number | null {
  const kind = chunk.length === frameHeaderBytes ? beatFrames.findIndex((each) => each.equals(chunk)) : -1;
  return kind < 0 ? null : kind;
}

/**
 * Parses a byte stream, split anywhere, into frames. `push` calls `onFrame` for each complete frame and throws a
 * TunnelError `frame-…` at the first malformed one; the parser cannot be used after that. Payloads are views of the
 * pushed buffer if the frame lies within it. Buffers at most one frame.
 */
export function makeFrameParser(onFrame: (frame: Frame) => void): { push(chunk: Buffer): void } {
  let held: Buffer[] = [];
  let heldBytes = 0;
  /** Bytes needed before another attempt at parsing. */
  let needed = frameHeaderBytes;

  return {
    push(chunk) {
      let buffer = chunk;
      if (heldBytes > 0) {
        held.push(chunk);
        heldBytes += chunk.length;
        if (heldBytes < needed) return;
        buffer = Buffer.concat(held, heldBytes);
        held = [];
        heldBytes = 0;
      }
      let at = 0;
      while (buffer.length - at >= frameHeaderBytes) {
        const length = checkHeader(buffer, at);
        const size = frameHeaderBytes + length;
        if (buffer.length - at < size) {
          needed = size;
          hold(buffer.subarray(at));
          return;
        }
        const frame = buffer[at + 1] === frameTypes.beat ? null : readFrame(buffer, at, length);
        at += size;
        if (frame) onFrame(frame);
      }
      needed = frameHeaderBytes;
      if (at < buffer.length) hold(buffer.subarray(at));
    },
  };

  function hold(rest: Buffer): void {
    held.push(rest);
    heldBytes = rest.length;
  }
}

/** Validates the header before the payload has arrived, so that the parser never waits for a bad length. */
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
      if (length === 0) throw new TunnelError('frame-malformed', 'empty DATA');
      return { type: 'data', position, payload };
    case frameTypes.end:
      return { type: 'end', position };
    case frameTypes.ack:
      return { type: 'ack', position };
    case frameTypes.resume:
      return { type: 'resume', position, payload };
    default: {
      const code = payload.toString('latin1');
      // The code ends up in logs and on terminals, so allow nothing but the characters of a code.
      if (!/^[a-z0-9-]+$/.test(code)) throw new TunnelError('frame-malformed', 'not an error code');
      return { type: 'close', code };
    }
  }
}
