import { asTunnelError, TunnelError } from '../errors.ts';
import { makeBucket } from '../network/token-bucket.ts';
import { type Frame, makeFrameParser } from './frames.ts';
import type { Path } from './path.ts';

/** A path and what it carries in frames, handed to one listener after the other: first who greets, then a pipe. */
export interface Link {
  readonly path: Path;
  /** From now on `events` gets what comes, the rest of the chunk under way included. The first call starts the path. */
  listen(events: LinkEvents): void;
  /** Hands a frame that was looked at to the listener of the moment. */
  deliver(frame: Frame): void;
  /** Closes the path; nobody is told anything more. */
  drop(): void;
}

export interface LinkEvents {
  /** May throw a TunnelError: the same as `broken`. */
  frame(frame: Frame): void;
  drain?(): void;
  /** As PathEvents.closed. */
  closed(error: TunnelError | null): void;
  /** What came is not what a pipe sends; nothing more will come. */
  broken(error: TunnelError): void;
}

/**
 * Frames that carry no bytes: an ACK for each 32 KiB or 5 ms at most, of which a stall may gather some hundred. At
 * this many the other end does nothing but keep us busy.
 */
const emptyFrames = { perSecond: 5_000, burst: 10_000 };

export function makeLink(path: Path): Link {
  const empty = makeBucket(emptyFrames);
  let events: LinkEvents | undefined;
  let spent = false;
  const parser = makeFrameParser((frame) => {
    if (spent) return;
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
          if (spent) return;
          try {
            parser.push(chunk);
          } catch (error) {
            if (spent) return;
            spent = true;
            events!.broken(asTunnelError(error, 'session-failed'));
          }
        },
        drain() {
          if (!spent) events!.drain?.();
        },
        closed(error) {
          if (spent) return;
          spent = true;
          events!.closed(error);
        },
      });
    },
    deliver: (frame) => events!.frame(frame),
    drop() {
      spent = true;
      path.close();
    },
  };
}
