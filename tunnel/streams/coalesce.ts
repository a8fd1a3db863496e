import type { Readable, Writable } from 'node:stream';

/** Larger than anything typed. */
const coalesceFromBytes = 4096;

/**
 * `from.pipe(to)` that coalesces all chunks of one turn into one write, for destinations with `writev` (sockets, pipes).
 * TLS records and HTTP/2 frames do not align, so under load every other chunk of a stream has only a few bytes, and each
 * separate write would wake the reader.
 */
export function pipeCoalesced(from: Readable, to: Writable, options: { end?: boolean } = {}): void {
  let corked = false;
  from.on('data', ({ length }: Buffer) => {
    // A keystroke's echo is not delayed.
    if (corked || length < coalesceFromBytes) return;
    corked = true;
    to.cork();
    process.nextTick(() => {
      corked = false;
      to.uncork();
    });
  });
  from.pipe(to, options);
}
