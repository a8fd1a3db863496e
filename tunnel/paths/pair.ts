import type { TunnelError } from '../errors.ts';
import type { Path, PathEvents } from '../pipe/path.ts';

/** Queued bytes beyond which the sender is asked to wait. */
const limit = 256 * 1024;

export interface PairEnd extends Path {
  /** Breaks both ends as a network would; queued data is lost. */
  cut(error: TunnelError): void;
  /** Bytes sent by this end that the other has not received yet. */
  readonly queued: number;
}

/** Two ends of a path within one process, for tests of the pipe and the session. */
export function makePathPair(): [PairEnd, PairEnd] {
  const ends: [End, End] = [makeEnd(() => ends[1]), makeEnd(() => ends[0])];
  return [ends[0].path, ends[1].path];
}

interface End {
  path: PairEnd;
  arrive(): void;
  end(error: TunnelError | null): void;
  take(): Buffer | undefined;
}

function makeEnd(other: () => End): End {
  let events: PathEvents | undefined;
  let paused = false;
  let waiting = false;
  let closed = false;
  let outgoing: Buffer[] = [];
  let queued = 0;
  let scheduled = false;

  const path: PairEnd = {
    kind: 'relay',
    via: 'memory',
    start(handlers) {
      events = handlers;
      arrive();
    },
    send(chunk) {
      if (closed) return true;
      // Copied, as on a network: the sender reuses its memory once the other end has acknowledged it.
      outgoing.push(Buffer.from(chunk));
      queued += chunk.length;
      other().arrive();
      waiting = queued >= limit;
      return !waiting;
    },
    pause() {
      paused = true;
    },
    resume() {
      if (!paused) return;
      paused = false;
      arrive();
    },
    close() {
      if (closed) return;
      closed = true;
      // An empty chunk marks the end, after all queued data.
      outgoing.push(Buffer.alloc(0));
      other().arrive();
      setImmediate(() => events?.closed(null));
    },
    cut(error) {
      outgoing = [];
      end(error);
      other().end(error);
    },
    get queued() {
      return queued;
    },
  };

  function end(error: TunnelError | null): void {
    if (closed) return;
    closed = true;
    setImmediate(() => events?.closed(error));
  }

  /** Delivers one chunk per turn, as a socket would. */
  function arrive(): void {
    if (scheduled || paused || !events) return;
    scheduled = true;
    setImmediate(() => {
      scheduled = false;
      if (paused || !events) return;
      const chunk = other().take();
      if (!chunk) return;
      if (chunk.length === 0) return end(null);
      if (!closed) events.data(chunk);
      arrive();
    });
  }

  function take(): Buffer | undefined {
    const chunk = outgoing.shift();
    queued -= chunk?.length ?? 0;
    if (waiting && queued < limit / 4) {
      waiting = false;
      events?.drain();
    }
    return chunk;
  }

  return { path, arrive, end, take };
}
