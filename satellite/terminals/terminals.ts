import { CallError, type Client } from '@cde/api/client.ts';
import { accessRevokedCloseCode, type TerminalMessage } from '@cde/api/events.ts';
import { Problem } from '@cde/api/problem.ts';
import {
  checkSatelliteTerminals,
  OpenTerminal,
  openSatelliteTerminal,
  terminalPath,
} from '@cde/api/satellite-terminals.ts';
import { makeClientKey } from '@cde/tunnel/auth/keys.ts';
import { type Clock, systemClock } from '@cde/tunnel/clock.ts';
import type { Log } from '@cde/tunnel/log.ts';
import { limitSocket, policyViolation, rejectSocket } from '@cde/tunnel/network/socket-limits.ts';
import { openSession } from '@cde/tunnel/session/session.ts';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { WebSocket } from 'ws';
import { proxyTerminal, safeJson, terminalBudget } from './terminal.ts';

/** Each terminal costs two TLS endpoints, an SSH client and their buffers. */
const maxTerminals = 500;
/** Sockets without a first message. Browsers send it at once, so the oldest is dropped to make room. */
const maxPending = 500;
/** Pending sockets per address, before the user is known. An office behind one NAT address opens this many at once. */
const maxPendingPerAddress = 64;
/** Limits of the first message: five times the longest one. */
const firstMessageTimeoutMs = 10_000;
const maxFirstMessageBytes = 16 * 1024;
/** Revoked access ends a terminal within ten seconds. */
const checkEveryMs = 6_000;
const requestTimeoutMs = 10_000;
/** Three pings without an answer. */
const deadAfterMs = 20_000;
/** WebSocket close code after which the page reconnects, here or elsewhere. */
const serviceRestart = 1012;

interface ActiveTerminal {
  socket: WebSocket;
  /** Identifies this terminal to the server; null until the server has authorized it. */
  admission: string | null;
  /** When its browser last answered a ping (performance.now()). */
  heardAt: number;
}

export interface Terminals {
  /** Number of open terminals. */
  readonly open: number;
  /** Closes all terminals; their pages reconnect elsewhere. */
  evictAll(reason: string): void;
}

/**
 * Serves terminals to browsers on a Fastify instance with @fastify/websocket. The browser presents a code; the server
 * exchanges it for a ticket that is limited to the workspace's SSH server. Every six seconds the satellite asks the server
 * which terminals must end. If the server is unreachable, open terminals continue.
 */
export function serveTerminals(
  app: FastifyInstance,
  options: {
    client: Pick<Client, 'call'>;
    /** True if an administrator lets this satellite serve browsers. */
    isEnabled: () => boolean;
    /** The origin of the pages that are allowed to open terminals. */
    dashboard: () => string;
    isDraining: () => boolean;
    /** The URL at which this process reaches itself; null to use the public one. */
    selfUrl: () => string | null;
    signal: AbortSignal;
    log: Log;
    clock?: Clock;
    limits?: {
      terminals?: number;
      pending?: number;
      pendingPerAddress?: number;
      firstMessageTimeoutMs?: number;
    };
  },
): Terminals {
  const { client, signal, log, clock = systemClock } = options;
  const max = options.limits?.terminals ?? maxTerminals;
  /** Oldest first. */
  const pending = new Map<WebSocket, string>();
  const terminals = new Set<ActiveTerminal>();

  app.get(
    terminalPath,
    {
      websocket: true,
      preValidation: async (request, reply) => {
        const problem = refusal(request);
        if (problem) return sendProblem(request, reply, problem);
      },
    },
    (socket, request) => accept(socket, request.ip),
  );

  function refusal({ headers }: FastifyRequest): Problem | null {
    if (!options.isEnabled())
      return new Problem('forbidden', 'This satellite does not serve terminals.', {
        hint: 'An owner of this installation can allow it.',
      });
    if (headers.origin !== options.dashboard())
      return new Problem('csrf-rejected', 'Only pages of the dashboard can open terminals here.', {
        detail: `Origin: ${headers.origin ?? 'none'}`,
        hint: `Open the dashboard at its own address: ${options.dashboard()}`,
      });
    if (options.isDraining()) return busy('It is draining.');
    if (terminals.size >= max) return busy(`It already serves ${max}.`);
    return null;
  }

  function accept(socket: WebSocket, address: string): void {
    // ws closes the socket after an error.
    socket.on('error', () => {});
    limitSocket(socket, terminalBudget);
    const reject = (message: string) => {
      socket.send(JSON.stringify({ type: 'exit', code: null, message } satisfies TerminalMessage));
      rejectSocket(socket, policyViolation, '');
    };
    const timer = setTimeout(
      () => reject('The browser did not say in time which terminal to open.'),
      options.limits?.firstMessageTimeoutMs ?? firstMessageTimeoutMs,
    );
    socket.once('close', () => {
      clearTimeout(timer);
      pending.delete(socket);
    });
    makeRoom([...pending.keys()], options.limits?.pending ?? maxPending);
    makeRoom(
      [...pending].flatMap(([one, from]) => (from === address ? [one] : [])),
      options.limits?.pendingPerAddress ?? maxPendingPerAddress,
    );
    pending.set(socket, address);
    socket.once('message', (data: Buffer, binary: boolean) => {
      if (socket.readyState !== socket.OPEN) return;
      clearTimeout(timer);
      pending.delete(socket);
      const first =
        binary || data.length > maxFirstMessageBytes ? null : OpenTerminal.safeParse(safeJson(data));
      if (!first?.success) return reject('The first message does not say which terminal to open.');
      if (terminals.size >= max) return reject(describeError(busy(`It already serves ${max}.`)));
      start(socket, first.data);
    });
  }

  /** Drops the oldest of these sockets to make room for one more. */
  function makeRoom(sockets: WebSocket[], max: number): void {
    for (const oldest of sockets.slice(0, Math.max(0, sockets.length - max + 1))) {
      pending.delete(oldest);
      oldest.terminate();
    }
  }

  function start(socket: WebSocket, { code, cols, rows, terminal }: OpenTerminal): void {
    const active: ActiveTerminal = { socket, admission: null, heardAt: performance.now() };
    terminals.add(active);
    let expiry: NodeJS.Timeout | undefined;
    socket.on('pong', () => {
      active.heardAt = performance.now();
    });
    socket.once('close', () => {
      clearTimeout(expiry);
      terminals.delete(active);
    });
    proxyTerminal(socket, {
      size: { cols, rows },
      terminal,
      describeError: describeError,
      async openSession(gone) {
        const key = makeClientKey();
        const asked = client.call(openSatelliteTerminal, {
          body: { code, clientKey: key.publicKey },
          signal: AbortSignal.any([gone, AbortSignal.timeout(requestTimeoutMs)]),
        });
        // A rejected terminal must not count against the limit while its socket closes.
        asked.catch(() => terminals.delete(active));
        const reply = await asked;
        active.admission = reply.admission;
        expiry = setTimeout(
          () => socket.close(serviceRestart, 'The connection is renewed after a day.'),
          Math.max(new Date(reply.admittedUntil).getTime() - Date.now(), checkEveryMs),
        );
        expiry.unref();
        const own = options.selfUrl();
        const session = await openSession({
          ...reply,
          satellites: own === null ? reply.satellites : reply.satellites.map((one) => ({ ...one, url: own })),
          clientPrivateKey: key.privateKey,
          signal: gone,
        });
        return { session, username: reply.username };
      },
    });
  }

  function evictAll(reason: string): void {
    for (const socket of [...pending.keys(), ...[...terminals].map((active) => active.socket)])
      socket.close(serviceRestart, reason);
  }

  function pingAll(): void {
    for (const active of terminals) {
      // While reading is paused no pong can arrive; if the browser is gone, the ping fails.
      if (performance.now() - active.heardAt > deadAfterMs && !active.socket.isPaused)
        active.socket.terminate();
      active.socket.ping();
    }
  }

  async function check(): Promise<void> {
    const asked = [...terminals].flatMap(({ socket, admission }) =>
      admission === null ? [] : [{ socket, admission }],
    );
    if (asked.length === 0) return;
    const { web, ended } = await client.call(checkSatelliteTerminals, {
      body: { admissions: asked.map(({ admission }) => admission) },
      signal: AbortSignal.any([signal, AbortSignal.timeout(requestTimeoutMs)]),
    });
    if (!web) return evictAll('This satellite does not serve terminals.');
    for (const index of ended) asked[index]?.socket.close(accessRevokedCloseCode, 'sign in again');
  }

  void (async () => {
    while (!signal.aborted) {
      await clock.sleep(checkEveryMs, signal);
      pingAll();
      await check().catch((error) =>
        log.debug({ why: (error as Error).message }, 'cannot check which terminals must end'),
      );
    }
  })();
  return {
    get open() {
      return terminals.size;
    },
    evictAll: evictAll,
  };
}

const busy = (detail: string) =>
  new Problem('server-busy', 'This satellite cannot open more terminals at the moment.', {
    detail,
    hint: 'Terminals can also be opened through the server.',
    retryAfter: 2,
  });

function sendProblem(request: FastifyRequest, reply: FastifyReply, problem: Problem): FastifyReply {
  if (problem.retryAfter) reply.header('retry-after', String(problem.retryAfter));
  return reply.code(problem.status).send(problem.toBody(request.id));
}

/** The message for the user: the server's if it rejected the request, otherwise the tunnel's or ours. */
function describeError(error: unknown): string {
  if (error instanceof CallError) {
    const { message, detail, hint } = error.body;
    return [message, detail && `(${detail})`, hint].filter(Boolean).join(' ');
  }
  const { name, message, hint } = error as Error & { hint?: string };
  if (name === 'TimeoutError') return 'The server did not authorize this terminal in time.';
  return [message, hint].filter(Boolean).join(' ');
}
