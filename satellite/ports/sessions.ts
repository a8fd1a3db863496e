import type { ClientHttp2Stream } from 'node:http2';
import type { Duplex } from 'node:stream';
import { awaitResponse } from '@cde/tunnel/auth/handshake.ts';
import type { Session } from '@cde/tunnel/session/session.ts';
import { busy } from './problems.ts';

/** A session that carries nothing is kept for the next page; most visits are over by then. */
const idleMs = 60_000;
/** Of one replica. Each costs two TLS ends and their buffers. */
const maxSessions = 500;
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

interface PooledSession {
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
  const all = new Map<string, PooledSession>();
  let closed = false;

  function drop(id: string, pooled: PooledSession) {
    clearTimeout(pooled.idle);
    if (all.get(id) === pooled) all.delete(id);
    pooled.opening.then(
      (session) => session.close(),
      () => {},
    );
  }

  function closeAll() {
    for (const [id, pooled] of all) drop(id, pooled);
  }

  function closeWhenIdle(id: string, pooled: PooledSession) {
    if (pooled.streams > 0 || all.get(id) !== pooled) return;
    clearTimeout(pooled.idle);
    pooled.idle = setTimeout(() => drop(id, pooled), idleMs);
    pooled.idle.unref();
  }

  function acquire(port: P): PooledSession {
    const id = keyOf(port);
    const known = all.get(id);
    if (known) return known;
    if (all.size >= maxSessions) {
      const unused = [...all].find(([, { streams }]) => streams === 0);
      if (!unused) throw busy(`It serves the ports of ${maxSessions} workspaces already.`);
      drop(...unused);
    }
    const pooled: PooledSession = {
      opening: open(port),
      streams: 0,
      idle: undefined,
    };
    all.set(id, pooled);
    const gone = () => {
      clearTimeout(pooled.idle);
      if (all.get(id) === pooled) all.delete(id);
    };
    pooled.opening.then((session) => session.closed.then(gone), gone);
    return pooled;
  }

  return {
    /**
     * A stream to the port on the workspace's loopback. What is written goes out with the request for it;
     * where nothing listens, it ends, and `opened` rejects with the TunnelError that says so. Rejects with a
     * Problem or a TunnelError.
     */
    async connect(port: P): Promise<PortStream> {
      if (closed) throw busy('It is about to stop.');
      const pooled = acquire(port);
      if (pooled.streams >= maxStreams)
        throw busy(`${maxStreams} connections to the ports of this workspace are open already.`);
      pooled.streams += 1;
      clearTimeout(pooled.idle);
      const done = () => {
        pooled.streams -= 1;
        closeWhenIdle(keyOf(port), pooled);
      };
      try {
        const session = await pooled.opening;
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
    closeAll: closeAll,
    close() {
      closed = true;
      closeAll();
    },
  };
}

export type PortSessions<P extends PortTarget> = ReturnType<typeof makePortSessions<P>>;
