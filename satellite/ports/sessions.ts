import type { ClientHttp2Stream } from 'node:http2';
import type { Duplex } from 'node:stream';
import { awaitResponse } from '@cde/tunnel/auth/handshake.ts';
import type { Session } from '@cde/tunnel/session/session.ts';
import type { PortVisit } from '@cde/tunnel/streams/visits.ts';
import { busy } from './problems.ts';

/** An idle session is kept for the next page load. */
const idleMs = 60_000;
/** Per process. Each costs two TLS endpoints and their buffers. */
const maxSessions = 500;
/** Concurrent streams per session. Above what admission.ts allows, for streams that are slow to close. */
const maxStreams = 400;

export interface PortStream {
  stream: Duplex;
  /** Settles with the agent's response, or when the stream ends without one. */
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
 * A pool of sessions with agents: opened by the first request, closed when idle, and replaced by the next request after
 * they end. Ports with the same `keyOf` share one.
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
      if (!unused) throw busy(`It already serves the ports of ${maxSessions} workspaces.`);
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
     * Opens a stream to the port on the workspace's loopback. Data can be written at once; if nothing listens, the stream
     * ends and `opened` rejects with a TunnelError. Rejects with a Problem or a TunnelError.
     */
    async connect(port: P, visit: PortVisit): Promise<PortStream> {
      if (closed) throw busy('The server is stopping.');
      const pooled = acquire(port);
      if (pooled.streams >= maxStreams)
        throw busy(`${maxStreams} connections to the ports of this workspace are already open.`);
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
          { eager: true, visit },
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
    /** Closes all sessions. */
    closeAll: closeAll,
    close() {
      closed = true;
      closeAll();
    },
  };
}

export type PortSessions<P extends PortTarget> = ReturnType<typeof makePortSessions<P>>;
