import type { ClientHttp2Stream } from 'node:http2';
import type { Duplex } from 'node:stream';
import { awaitResponse } from '@cde/tunnel/auth/handshake.ts';
import type { Session } from '@cde/tunnel/session/session.ts';
import { busy } from './problems.ts';

/** A session that carries nothing is kept for the next page; most visits are over by then. */
const idleMs = 60_000;
/** Of one replica. Each costs two TLS ends and their buffers. */
const mostSessions = 500;
/** At once through one session. Whoever is admitted (admission.ts) gets one; this holds if streams are slow to close. */
const maxStreams = 400;

export interface PortStream {
  stream: Duplex;
  /** Settles with the agent's answer, or when the stream ends without one. */
  opened: Promise<void>;
}

/** A port on the loopback of a workspace. */
export interface PortTarget {
  workspaceId: string;
  port: number;
}

interface Held {
  opening: Promise<Session>;
  streams: number;
  idle: NodeJS.Timeout | undefined;
}

/**
 * The sessions with agents of whoever serves ports, opened by the first request, closed when idle. A session that
 * ended is replaced by the next request. `keyOf`: what shares one.
 */
export function makePortSessions<P extends PortTarget>(
  open: (port: P) => Promise<Session>,
  keyOf: (port: P) => string,
) {
  const all = new Map<string, Held>();
  let closed = false;

  function drop(id: string, held: Held) {
    clearTimeout(held.idle);
    if (all.get(id) === held) all.delete(id);
    held.opening.then(
      (session) => session.close(),
      () => {},
    );
  }

  function empty() {
    for (const [id, held] of all) drop(id, held);
  }

  function rest(id: string, held: Held) {
    if (held.streams > 0 || all.get(id) !== held) return;
    clearTimeout(held.idle);
    held.idle = setTimeout(() => drop(id, held), idleMs);
    held.idle.unref();
  }

  function hold(port: P): Held {
    const id = keyOf(port);
    const known = all.get(id);
    if (known) return known;
    if (all.size >= mostSessions) {
      const unused = [...all].find(([, { streams }]) => streams === 0);
      if (!unused) throw busy(`It serves the ports of ${mostSessions} workspaces already.`);
      drop(...unused);
    }
    const held: Held = {
      opening: open(port),
      streams: 0,
      idle: undefined,
    };
    all.set(id, held);
    const gone = () => {
      clearTimeout(held.idle);
      if (all.get(id) === held) all.delete(id);
    };
    held.opening.then((session) => session.closed.then(gone), gone);
    return held;
  }

  return {
    /**
     * A stream to the port on the workspace's loopback. What is written goes out with the request for it;
     * where nothing listens, it ends, and `opened` rejects with the TunnelError that says so. Rejects with a
     * Problem or a TunnelError.
     */
    async connect(port: P): Promise<PortStream> {
      if (closed) throw busy('It is about to stop.');
      const held = hold(port);
      if (held.streams >= maxStreams)
        throw busy(`${maxStreams} connections to the ports of this workspace are open already.`);
      held.streams += 1;
      clearTimeout(held.idle);
      const done = () => {
        held.streams -= 1;
        rest(keyOf(port), held);
      };
      try {
        const session = await held.opening;
        const stream = await session.open(
          { kind: 'tcp', host: 'localhost', port: port.port },
          { eager: true },
        );
        stream.once('close', done);
        const opened = awaitResponse(stream as ClientHttp2Stream).then(() => {});
        opened.catch(() => {});
        return { stream, opened };
      } catch (error) {
        done();
        throw error;
      }
    },
    /** Ends them all. */
    empty,
    close() {
      closed = true;
      empty();
    },
  };
}

export type PortSessions<P extends PortTarget> = ReturnType<typeof makePortSessions<P>>;
