import { Duplex } from 'node:stream';
import { isTunnelErrorCode, TunnelError } from './errors.ts';
import { closeFrame, dataFrame, endFrame, makeFrameParser, maxFramePayload } from './frames.ts';
import type { Path } from './path.ts';

/**
 * A pipe: an ordered, reliable Duplex between client and agent over one active path, with backpressure both
 * ways and half-close. TLS runs on top. It is destroyed with a TunnelError that names why: the path's own
 * error, `frame-…` for what it could not accept, or the code that the other end gave.
 *
 * Positions in the frames already number each direction's bytes; a pipe that outlives its path keeps what
 * is not acknowledged, attaches another path and sends on from there, behind this same interface.
 */
export interface Pipe extends Duplex {
  /** The active path. */
  readonly path: Path;
  /** Bytes handed up and taken for sending since the start. */
  readonly received: number;
  readonly sent: number;
}

/** How much the pipe itself buffers each way; beyond it TLS, and so the sender above, waits. */
const highWaterMark = 128 * 1024;

/** Makes a pipe over a path that is open; starts the path. */
export function makePipe({ path }: { path: Path }): Pipe {
  let received = 0;
  let sent = 0;
  let remoteEnded = false;
  let pathClosed = false;
  /** What to call once the path has room again. */
  let waiting: (() => void) | undefined;

  const duplex = new Duplex({
    highWaterMark,
    read: () => path.resume(),
    write: (chunk: Buffer, _encoding, done) => send([chunk], done),
    writev: (entries, done) =>
      send(
        entries.map((entry) => entry.chunk as Buffer),
        done,
      ),
    final(done) {
      if (!pathClosed) path.send(endFrame(sent));
      done();
    },
    destroy(error, done) {
      waiting = undefined;
      if (!pathClosed) {
        if (error) path.send(closeFrame(error instanceof TunnelError ? error.code : 'session-failed'));
        path.close();
      }
      done(error);
    },
  });

  function send(chunks: Buffer[], done: (error?: Error | null) => void): void {
    let room = true;
    for (const { parts, length } of intoFrames(chunks)) {
      room = path.send(dataFrame(parts, length, sent));
      sent += length;
    }
    if (room || unreadFull()) done();
    else waiting = done;
  }

  /**
   * Node's HTTP/2 does not read while a write of its own is under way. Were a write to wait for the other end
   * to read, and the other end's for us, two busy directions would stop each other for good. So a write waits
   * only while what came in is within bounds; past that it is let go, and HTTP/2's windows bound the rest.
   */
  function unreadFull(): boolean {
    return duplex.readableLength >= highWaterMark;
  }

  function letGo(): void {
    const done = waiting;
    waiting = undefined;
    done?.();
  }

  const parser = makeFrameParser((frame) => {
    if (duplex.destroyed) return;
    if (frame.type === 'close') {
      duplex.destroy(new TunnelError(isTunnelErrorCode(frame.code) ? frame.code : 'pipe-closed', frame.code));
      return;
    }
    if (remoteEnded || frame.position !== received) {
      throw new TunnelError(
        'frame-out-of-order',
        remoteEnded ? 'more after the end' : `${frame.position} where ${received} was due`,
      );
    }
    if (frame.type === 'end') {
      remoteEnded = true;
      duplex.push(null);
      return;
    }
    received += frame.payload.length;
    if (!duplex.push(frame.payload)) path.pause();
    if (unreadFull()) letGo();
  });

  path.start({
    data(chunk) {
      if (duplex.destroyed) return;
      try {
        parser.push(chunk);
      } catch (error) {
        duplex.destroy(error as Error);
      }
    },
    drain: letGo,
    closed(error) {
      pathClosed = true;
      if (remoteEnded && duplex.writableFinished) return; // Both directions have ended: nothing is lost.
      duplex.destroy(error ?? new TunnelError('pipe-closed'));
    },
  });

  return Object.defineProperties(duplex, {
    path: { get: () => path },
    received: { get: () => received },
    sent: { get: () => sent },
  }) as Pipe;
}

/** Cuts and joins chunks into frames as few and as full as may be, without copying. */
function* intoFrames(chunks: readonly Buffer[]): Generator<{ parts: Buffer[]; length: number }> {
  let parts: Buffer[] = [];
  let length = 0;
  for (let chunk of chunks) {
    while (chunk.length > 0) {
      const part = chunk.subarray(0, maxFramePayload - length);
      parts.push(part);
      length += part.length;
      chunk = chunk.subarray(part.length);
      if (length === maxFramePayload) {
        yield { parts, length };
        parts = [];
        length = 0;
      }
    }
  }
  if (length > 0) yield { parts, length };
}
