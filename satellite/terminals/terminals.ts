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

/** Each costs two TLS ends, an SSH client and their buffers. */
const maxTerminals = 500;
/** Sockets that have not said yet what they want. A browser says so at once, so of too many the oldest is none. */
const maxPending = 500;
/** Of these, from one address: nobody is known yet. An office behind one address has as many say so at once. */
const maxPendingPerAddress = 64;
/** How long one may take to say it, and how much it may say: five times the longest. */
const firstMessageTimeoutMs = 10_000;
const maxFirstMessageBytes = 16 * 1024;
/** Whoever may no longer loses the terminal within ten seconds. */
const checkEveryMs = 6_000;
const requestTimeoutMs = 10_000;
/** A browser that has answered none of three pings is gone. */
const deadAfterMs = 20_000;
/** What a socket is closed with whose browser is to come again, here or elsewhere. */
const serviceRestart = 1012;

interface ActiveTerminal {
  socket: WebSocket;
  /** To ask the server with; null before it has admitted this one. */
  admission: string | null;
  /** When its browser answered last, by performance.now(). */
  heardAt: number;
}

export interface Terminals {
  /** How many are open at this moment. */
  readonly open: number;
  /** Closes all; their browsers go on elsewhere. */
  evictAll(reason: string): void;
}

/**
 * Serves terminals to browsers, on a Fastify instance that has @fastify/websocket: the browser shows a code of the
 * server's, the server gives a ticket for it that opens the workspace's SSH server and nothing else, and says every six
 * seconds which terminals may not go on. A server that is away decides nothing.
 */
export function serveTerminals(
  app: FastifyInstance,
  options: {
    client: Pick<Client, 'call'>;
    /** True: an administrator lets this satellite serve browsers. */
    isEnabled: () => boolean;
    /** The origin of the pages that may open terminals. */
    dashboard: () => string;
    isDraining: () => boolean;
    /** This satellite, as this process reaches it; null: by the address that everybody takes. */
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
      return new Problem('forbidden', 'This satellite serves no terminals.', {
        hint: 'An owner of this installation can allow it.',
      });
    if (headers.origin !== options.dashboard())
      return new Problem('csrf-rejected', 'Only pages of the dashboard open terminals here.', {
        detail: `Origin: ${headers.origin ?? 'none'}`,
        hint: `Open the dashboard by its own address: ${options.dashboard()}`,
      });
    if (options.isDraining()) return busy('It is being emptied.');
    if (terminals.size >= max) return busy(`It serves ${max} already.`);
    return null;
  }

  function accept(socket: WebSocket, address: string): void {
    // ws closes by itself after an error.
    socket.on('error', () => {});
    limitSocket(socket, terminalBudget);
    const reject = (message: string) => {
      socket.send(JSON.stringify({ type: 'exit', code: null, message } satisfies TerminalMessage));
      rejectSocket(socket, policyViolation, '');
    };
    const timer = setTimeout(
      () => reject('Nobody has said which terminal to open.'),
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
      if (terminals.size >= max) return reject(describeError(busy(`It serves ${max} already.`)));
      start(socket, first.data);
    });
  }

  /** Ends the oldest of these that wait, so that there is room for one more. */
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
        // Who is refused takes nobody's place, however long their end takes to close.
        asked.catch(() => terminals.delete(active));
        const reply = await asked;
        active.admission = reply.admission;
        expiry = setTimeout(
          () => socket.close(serviceRestart, 'A day is over: the terminal goes on over a new connection.'),
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
      // One that we do not read from cannot be heard; if it is gone, the ping finds out.
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
    if (!web) return evictAll('This satellite serves no terminals any more.');
    for (const index of ended) asked[index]?.socket.close(accessRevokedCloseCode, 'sign in again');
  }

  void (async () => {
    while (!signal.aborted) {
      await clock.sleep(checkEveryMs, signal);
      pingAll();
      await check().catch((error) =>
        log.debug({ why: (error as Error).message }, 'whether terminals may go on could not be asked'),
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
  new Problem('server-busy', 'This satellite can open no more terminals at the moment.', {
    detail,
    hint: 'The server opens them too.',
    retryAfter: 2,
  });

function sendProblem(request: FastifyRequest, reply: FastifyReply, problem: Problem): FastifyReply {
  if (problem.retryAfter) reply.header('retry-after', String(problem.retryAfter));
  return reply.code(problem.status).send(problem.toBody(request.id));
}

/** What the user is told: the server's words where it has refused, else the tunnel's or ours. */
function describeError(error: unknown): string {
  if (error instanceof CallError) {
    const { message, detail, hint } = error.body;
    return [message, detail && `(${detail})`, hint].filter(Boolean).join(' ');
  }
  const { name, message, hint } = error as Error & { hint?: string };
  if (name === 'TimeoutError') return 'The server has not said in time whether you may open this terminal.';
  return [message, hint].filter(Boolean).join(' ');
}
