import { asTunnelError, TunnelError } from '../errors.ts';
import { makeBucket } from '../network/token-bucket.ts';
import { type Frame, makeFrameParser } from './frames.ts';
import type { Path } from './path.ts';

/** A path with its frame parser, handed from one listener to the next: first the resume handshake, then a pipe. */
export interface Link {
  readonly path: Path;
  /** Delivers to `events` from now on, including the rest of the current chunk. The first call starts the path. */
  listen(events: LinkEvents): void;
  /** Passes a frame that was already received to the current listener. */
  deliver(frame: Frame): void;
  /** Closes the path without further events. */
  drop(): void;
}

export interface LinkEvents {
  /** May throw a TunnelError, which is then passed to `broken`. */
  frame(frame: Frame): void;
  drain?(): void;
  /** As PathEvents.closed. */
  closed(error: TunnelError | null): void;
  /** The peer violated the protocol; no further events follow. */
  broken(error: TunnelError): void;
}

/**
 * Limit for frames without payload. A peer sends at most one ACK per 32 KiB and 5 ms, and a stall may accumulate some
 * hundred; more than this is a flood.
 */
const emptyFrameRate = { perSecond: 5_000, burst: 10_000 };

export function makeLink(path: Path): Link {
  const empty = makeBucket(emptyFrameRate);
  let events: LinkEvents | undefined;
  let ended = false;
  const parser = makeFrameParser((frame) => {
    if (ended) return;
    if (frame.type !== 'data' && !empty.take(1)) throw new TunnelError('frame-flood');
    events!.frame(frame);
  });
  return {
    path,
    listen(next) {
      const starts = !events;
      events = next;
      if (!starts) return;
      path.start({
        data(chunk) {
          if (ended) return;
          try {
            parser.push(chunk);
          } catch (error) {
            if (ended) return;
            ended = true;
            events!.broken(asTunnelError(error, 'session-failed'));
          }
        },
        drain() {
          if (!ended) events!.drain?.();
        },
        closed(error) {
          if (ended) return;
          ended = true;
          events!.closed(error);
        },
      });
    },
    deliver: (frame) => events!.frame(frame),
    drop() {
      ended = true;
      path.close();
    },
  };
}
