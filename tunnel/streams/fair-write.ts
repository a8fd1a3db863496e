import type { Duplex } from 'node:stream';

/** What a stream sends before the others have their turn: a packet of SSH's, a quarter of a millisecond at 1 Gbit/s. */
const quantumBytes = 32 * 1024;

/**
 * Lets the streams of a session take turns. HTTP/2 sends all that a stream has waiting at once, which after a burst
 * may be megabytes, and a key's echo on another stream would come after it. So of more than a turn's worth the
 * stream hands over chunk by chunk, each when the one before has left; between two, HTTP/2 sends what others have.
 */
export function writeFairly<Stream extends Duplex>(stream: Stream): Stream {
  const { session } = stream as { session?: object };
  if (session) {
    streamCounts.set(session, (streamCounts.get(session) ?? 0) + 1);
    stream.once('close', () => streamCounts.set(session, streamCounts.get(session)! - 1));
  }
  const writev = stream._writev;
  // A Writable that has `_writev`, at this moment, hands over all at once; one that has not, one by one. To cut it
  // into pieces within `_writev` is not possible: Node's HTTP/2 ends a stream whose last call of it has begun.
  return Object.defineProperty(stream, '_writev', {
    get: () => (stream.writableLength <= quantumBytes ? writev : undefined),
  });
}

/** How many streams of each session take turns. */
const streamCounts = new WeakMap<object, number>();

/** Whether there is nobody to take turns with at this moment. */
export function isOnlyStream(stream: Duplex): boolean {
  const { session } = stream as { session?: object };
  return !session || (streamCounts.get(session) ?? 0) <= 1;
}
