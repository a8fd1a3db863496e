import type { ClientHttp2Stream } from 'node:http2';
import type { Duplex } from 'node:stream';
import { Problem } from '@cde/api/problem.ts';
import { response } from '@cde/tunnel/handshake.ts';
import type { Session } from '@cde/tunnel/session.ts';
import type { Opener } from '../connections/open.ts';
import type { FoundPort } from './store.ts';

/** A session that carries nothing is kept for the next page; most visits are over by then. */
const idleMs = 60_000;
/** Of one replica. Each costs two TLS ends and their buffers. */
const mostSessions = 500;
/** At once through one workspace: one of them must not take the others' share of this process. */
const mostStreams = 250;

export interface PortStream {
  stream: Duplex;
  /** Settles with the agent's answer, or when the stream ends without one. */
  opened: Promise<void>;
}

interface Held {
  opening: Promise<Session>;
  streams: number;
  idle: NodeJS.Timeout | undefined;
}

/**
 * The server's own sessions with agents: one for each workspace whose ports are in use, opened by the first
 * request, closed when idle. A session that ended is replaced by the next request.
 */
export function makePortSessions(open: Opener) {
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

  function rest(id: string, held: Held) {
    if (held.streams > 0 || all.get(id) !== held) return;
    clearTimeout(held.idle);
    held.idle = setTimeout(() => drop(id, held), idleMs);
    held.idle.unref();
  }

  function hold(port: FoundPort): Held {
    const id = port.workspaceId;
    const known = all.get(id);
    if (known) return known;
    if (all.size >= mostSessions) {
      const unused = [...all].find(([, { streams }]) => streams === 0);
      if (!unused) throw busy(`It serves the ports of ${mostSessions} workspaces already.`);
      drop(...unused);
    }
    const held: Held = {
      opening: open(port.owner, id).then(({ session }) => session),
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
    async connect(port: FoundPort): Promise<PortStream> {
      if (closed) throw busy('It is about to stop.');
      const held = hold(port);
      if (held.streams >= mostStreams)
        throw busy(`${mostStreams} connections to the ports of this workspace are open already.`);
      held.streams += 1;
      clearTimeout(held.idle);
      const done = () => {
        held.streams -= 1;
        rest(port.workspaceId, held);
      };
      try {
        const session = await held.opening;
        const stream = await session.open(
          { kind: 'tcp', host: 'localhost', port: port.port },
          { eager: true },
        );
        stream.once('close', done);
        const opened = response(stream as ClientHttp2Stream).then(() => {});
        opened.catch(() => {});
        return { stream, opened };
      } catch (error) {
        done();
        throw error;
      }
    },
    close() {
      closed = true;
      for (const [id, held] of all) drop(id, held);
    },
  };
}

export type PortSessions = ReturnType<typeof makePortSessions>;

const busy = (detail: string) =>
  new Problem('server-busy', 'The server can open no more connections to this port at the moment.', {
    detail,
    hint: 'Try again in a few seconds.',
    retryAfter: 2,
  });
