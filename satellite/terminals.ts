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
import { carryTerminal, safeJson, terminalBudget } from './terminal.ts';

/** Each costs two TLS ends, an SSH client and their buffers. */
const mostTerminals = 500;
/** Sockets that have not said yet what they want. A browser says so at once, so of too many the oldest is none. */
const mostWaiting = 500;
/** Of these, from one address: nobody is known yet. An office behind one address has as many say so at once. */
const maxWaitingPerAddress = 64;
/** How long one may take to say it, and how much it may say: five times the longest. */
const sayWithinMs = 10_000;
const mostFirst = 16 * 1024;
/** Whoever may no longer loses the terminal within ten seconds. */
const checkEveryMs = 6_000;
const askMs = 10_000;
/** A browser that has answered none of three pings is gone. */
const deadAfterMs = 20_000;
/** What a socket is closed with whose browser is to come again, here or elsewhere. */
const comeAgain = 1012;

interface Held {
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
  sendAway(reason: string): void;
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
    allowed: () => boolean;
    /** The origin of the pages that may open terminals. */
    dashboard: () => string;
    draining: () => boolean;
    /** This satellite, as this process reaches it; null: by the address that everybody takes. */
    ownUrl: () => string | null;
    signal: AbortSignal;
    log: Log;
    clock?: Clock;
    limits?: { terminals?: number; waiting?: number; waitingPerAddress?: number; sayWithinMs?: number };
  },
): Terminals {
  const { client, signal, log, clock = systemClock } = options;
  const most = options.limits?.terminals ?? mostTerminals;
  /** Oldest first. */
  const waiting = new Map<WebSocket, string>();
  const terminals = new Set<Held>();

  app.get(
    terminalPath,
    {
      websocket: true,
      preValidation: async (request, reply) => {
        const problem = refusal(request);
        if (problem) return refuse(request, reply, problem);
      },
    },
    (socket, request) => take(socket, request.ip),
  );

  function refusal({ headers }: FastifyRequest): Problem | null {
    if (!options.allowed())
      return new Problem('forbidden', 'This satellite serves no terminals.', {
        hint: 'An owner of this installation can allow it.',
      });
    if (headers.origin !== options.dashboard())
      return new Problem('csrf-rejected', 'Only pages of the dashboard open terminals here.', {
        detail: `Origin: ${headers.origin ?? 'none'}`,
        hint: `Open the dashboard by its own address: ${options.dashboard()}`,
      });
    if (options.draining()) return busy('It is being emptied.');
    if (terminals.size >= most) return busy(`It serves ${most} already.`);
    return null;
  }

  function take(socket: WebSocket, address: string): void {
    // ws closes by itself after an error.
    socket.on('error', () => {});
    limitSocket(socket, terminalBudget);
    const turnAway = (message: string) => {
      socket.send(JSON.stringify({ type: 'exit', code: null, message } satisfies TerminalMessage));
      rejectSocket(socket, policyViolation, '');
    };
    const timer = setTimeout(
      () => turnAway('Nobody has said which terminal to open.'),
      options.limits?.sayWithinMs ?? sayWithinMs,
    );
    socket.once('close', () => {
      clearTimeout(timer);
      waiting.delete(socket);
    });
    makeRoom([...waiting.keys()], options.limits?.waiting ?? mostWaiting);
    makeRoom(
      [...waiting].flatMap(([one, from]) => (from === address ? [one] : [])),
      options.limits?.waitingPerAddress ?? maxWaitingPerAddress,
    );
    waiting.set(socket, address);
    socket.once('message', (data: Buffer, binary: boolean) => {
      if (socket.readyState !== socket.OPEN) return;
      clearTimeout(timer);
      waiting.delete(socket);
      const first = binary || data.length > mostFirst ? null : OpenTerminal.safeParse(safeJson(data));
      if (!first?.success) return turnAway('The first message does not say which terminal to open.');
      if (terminals.size >= most) return turnAway(wordsOf(busy(`It serves ${most} already.`)));
      carry(socket, first.data);
    });
  }

  /** Ends the oldest of these that wait, so that there is room for one more. */
  function makeRoom(sockets: WebSocket[], max: number): void {
    for (const oldest of sockets.slice(0, Math.max(0, sockets.length - max + 1))) {
      waiting.delete(oldest);
      oldest.terminate();
    }
  }

  function carry(socket: WebSocket, { code, cols, rows, terminal }: OpenTerminal): void {
    const held: Held = { socket, admission: null, heardAt: performance.now() };
    terminals.add(held);
    let over: NodeJS.Timeout | undefined;
    socket.on('pong', () => {
      held.heardAt = performance.now();
    });
    socket.once('close', () => {
      clearTimeout(over);
      terminals.delete(held);
    });
    carryTerminal(socket, {
      size: { cols, rows },
      terminal,
      words: wordsOf,
      async openSession(gone) {
        const key = makeClientKey();
        const asked = client.call(openSatelliteTerminal, {
          body: { code, clientKey: key.publicKey },
          signal: AbortSignal.any([gone, AbortSignal.timeout(askMs)]),
        });
        // Who is refused takes nobody's place, however long their end takes to close.
        asked.catch(() => terminals.delete(held));
        const reply = await asked;
        held.admission = reply.admission;
        over = setTimeout(
          () => socket.close(comeAgain, 'A day is over: the terminal goes on over a new connection.'),
          Math.max(new Date(reply.admittedUntil).getTime() - Date.now(), checkEveryMs),
        );
        over.unref();
        const own = options.ownUrl();
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

  function sendAway(reason: string): void {
    for (const socket of [...waiting.keys(), ...[...terminals].map((held) => held.socket)])
      socket.close(comeAgain, reason);
  }

  function lookForLife(): void {
    for (const held of terminals) {
      // One that we do not read from cannot be heard; if it is gone, the ping finds out.
      if (performance.now() - held.heardAt > deadAfterMs && !held.socket.isPaused) held.socket.terminate();
      held.socket.ping();
    }
  }

  async function check(): Promise<void> {
    const asked = [...terminals].flatMap(({ socket, admission }) =>
      admission === null ? [] : [{ socket, admission }],
    );
    if (asked.length === 0) return;
    const { web, ended } = await client.call(checkSatelliteTerminals, {
      body: { admissions: asked.map(({ admission }) => admission) },
      signal: AbortSignal.any([signal, AbortSignal.timeout(askMs)]),
    });
    if (!web) return sendAway('This satellite serves no terminals any more.');
    for (const index of ended) asked[index]?.socket.close(accessRevokedCloseCode, 'sign in again');
  }

  void (async () => {
    while (!signal.aborted) {
      await clock.sleep(checkEveryMs, signal);
      lookForLife();
      await check().catch((error) =>
        log.debug({ why: (error as Error).message }, 'whether terminals may go on could not be asked'),
      );
    }
  })();
  return {
    get open() {
      return terminals.size;
    },
    sendAway,
  };
}

const busy = (detail: string) =>
  new Problem('server-busy', 'This satellite can open no more terminals at the moment.', {
    detail,
    hint: 'The server opens them too.',
    retryAfter: 2,
  });

function refuse(request: FastifyRequest, reply: FastifyReply, problem: Problem): FastifyReply {
  if (problem.retryAfter) reply.header('retry-after', String(problem.retryAfter));
  return reply.code(problem.status).send(problem.toBody(request.id));
}

/** What the user is told: the server's words where it has refused, else the tunnel's or ours. */
function wordsOf(error: unknown): string {
  if (error instanceof CallError) {
    const { message, detail, hint } = error.body;
    return [message, detail && `(${detail})`, hint].filter(Boolean).join(' ');
  }
  const { name, message, hint } = error as Error & { hint?: string };
  if (name === 'TimeoutError') return 'The server has not said in time whether you may open this terminal.';
  return [message, hint].filter(Boolean).join(' ');
}
