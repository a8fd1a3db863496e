import type { Readable, Writable } from 'node:stream';

/** More than anybody types. */
const coalesceFromBytes = 4096;

/**
 * `from.pipe(to)`, for a stream of a session and what takes several chunks in one call (a socket, a pipe): what comes in
 * one turn goes out in one call. The last bytes of a TLS record are the next frame's of HTTP/2, so that a stream gives
 * what it has much of in pieces, every other one of some bytes; each would wake whoever reads it.
 */
export function pipeCoalesced(from: Readable, to: Writable, options: { end?: boolean } = {}): void {
  let corked = false;
  from.on('data', ({ length }: Buffer) => {
    // A key's echo is alone.
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
