import type { Duplex } from 'node:stream';

/** What a stream sends before the others get their turn: one SSH packet, 0.25 ms at 1 Gbit/s. */
const quantumBytes = 32 * 1024;

/**
 * Makes the streams of a session share it fairly. HTTP/2 sends everything that a stream has buffered at once, after a
 * burst possibly megabytes, and a keystroke's echo on another stream would wait behind it. So a stream with more than a
 * quantum hands its chunks over one at a time, and HTTP/2 serves the others in between.
 */
export function writeFairly<Stream extends Duplex>(stream: Stream): Stream {
  const { session } = stream as { session?: object };
  if (session) {
    streamCounts.set(session, (streamCounts.get(session) ?? 0) + 1);
    stream.once('close', () => streamCounts.set(session, streamCounts.get(session)! - 1));
  }
  const writev = stream._writev;
  // A Writable passes everything to `_writev` if it has one at that moment, else one chunk at a time to `_write`.
  // Splitting inside `_writev` does not work: Node's HTTP/2 ends a stream once its last `_writev` has begun.
  return Object.defineProperty(stream, '_writev', {
    get: () => (stream.writableLength <= quantumBytes ? writev : undefined),
  });
}

/** The number of open streams per session. */
const streamCounts = new WeakMap<object, number>();

/** True if the session has no other stream at the moment. */
export function isOnlyStream(stream: Duplex): boolean {
  const { session } = stream as { session?: object };
  return !session || (streamCounts.get(session) ?? 0) <= 1;
}
