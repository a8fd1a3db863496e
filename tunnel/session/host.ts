import { randomUUID } from 'node:crypto';
import { type IncomingHttpHeaders, performServerHandshake, type ServerHttp2Stream } from 'node:http2';
import type { Duplex } from 'node:stream';
import { createServer, type TLSSocket } from 'node:tls';
import {
  alpn,
  checkProof,
  errorHeaders,
  helloPath,
  icePath,
  maxSessionMemory,
  offersPath,
  proofHeader,
  sessionHeader,
  sessionWindow,
  streamWindow,
  targetHeader,
  waitHeader,
} from '../auth/handshake.ts';
import { verifyTicket } from '../auth/ticket.ts';
import { asTunnelError, TunnelError, type TunnelErrorCode } from '../errors.ts';
import { type Log, silentLog } from '../log.ts';
import type { PathKind } from '../pipe/path.ts';
import type { Pipe } from '../pipe/pipe.ts';
import { type ResumeSecret, resumeSecret } from '../pipe/resume.ts';
import { formatOffer, type OfferSource } from '../selection/offers.ts';
import { writeFairly } from '../streams/fair-write.ts';
import { formatTarget, parseTarget, splice, type Target } from '../streams/targets.ts';

/** Requests before any ticket was shown, of a client that we do not know: one of ours begins with its ticket. */
const maxRequestsBeforeTicket = 16;

/** Who is at the other end of a session. */
export interface SessionContext {
  sessionId: string;
  workspaceId: string;
  userId: string;
  /** The kinds of path that the ticket allows. */
  paths: readonly PathKind[];
  /** The targets that the ticket allows, as formatTarget writes them; null: all. */
  only: readonly string[] | null;
  /** Aborted when the session is over. */
  signal: AbortSignal;
}

export interface HostOptions {
  pipe: Pipe;
  /** PEM, from makeCertificate. */
  tlsKey: string;
  tlsCert: string;
  workspaceId: string | (() => string);
  /** The server's public keys (SPKI, base64url), or how to get those of the moment. */
  ticketKeys: readonly string[] | (() => readonly string[]);
  /** This agent's key: makeCertificate's fingerprint. */
  agentKey: string;
  /**
   * Serves a stream. Return a Duplex (connectTarget's, for example) to have it joined with the stream, or
   * nothing when you have taken the stream yourself; either way the client then sees the stream open. Throw
   * a TunnelError `target-…` to refuse it.
   */
  onStream: (
    target: Target,
    stream: Duplex,
    context: SessionContext,
  ) => Promise<Duplex | undefined> | Duplex | undefined;
  /** Told once the ticket is accepted, if the client means to come back: by which secret, within what time. */
  onResumable?: (secret: ResumeSecret, waitMs: number, context: SessionContext) => void;
  /** The kinds of path that may carry streams here, whatever a ticket says; all that it allows without. */
  paths?: () => readonly PathKind[];
  /** What the client may choose from instead of the path that it came by. */
  offers?: OfferSource;
  /**
   * Begins to look for a path by UDP with the client; what it returns talks to the client over a stream, until it
   * is done. Throws where there is none to be had. Asked only where such paths may be used.
   */
  serveUdpSignaling?: (context: SessionContext) => (stream: Duplex) => Promise<void>;
  /** Asked once the ticket is accepted; streams wait for it. Rejects to end the session before its first one. */
  authorize?: (context: SessionContext) => Promise<void>;
  /** Told once the ticket is accepted. */
  onOpen?: (context: SessionContext) => void;
  /** The time by which tickets are judged. */
  now?: () => Date;
  /** How long a client may take to finish TLS and show its ticket; default 10 s. */
  admissionTimeoutMs?: number;
  log?: Log;
}

export interface HostedSession {
  /** Ends the session; the client is told the code. */
  close(code?: TunnelErrorCode): void;
  /** Resolves, never rejects, when it is over: `session-closed` when the client closed it, else why it broke. */
  readonly closed: Promise<{ reason: TunnelErrorCode; error: TunnelError }>;
}

/** True when paths of this kind may carry a session's streams. */
export function isPathAllowed(
  options: Pick<HostOptions, 'paths'>,
  kind: PathKind,
  context: Pick<SessionContext, 'paths'>,
): boolean {
  return context.paths.includes(kind) && (options.paths?.().includes(kind) ?? true);
}

/** Serves one session on a pipe: the agent's side. A session once open outlives its ticket. */
export function serveSession(options: HostOptions): HostedSession {
  const { pipe, log = silentLog } = options;
  const over = new AbortController();
  // Never listens: it is Node's public way to a server's TLS over any stream, one for each pipe.
  const server = createServer({
    key: options.tlsKey,
    cert: options.tlsCert,
    minVersion: 'TLSv1.3',
    maxVersion: 'TLSv1.3',
    ALPNProtocols: [alpn],
  });
  /** Set by the first hello; streams wait for it, and for `authorize`. */
  let admitted: Promise<SessionContext> | undefined;
  let requestsBeforeTicket = 0;

  const admissionTimer = setTimeout(
    () => pipe.destroy(new TunnelError('session-timeout', 'no ticket was shown in time')),
    options.admissionTimeoutMs ?? 10_000,
  );

  let finish: (end: { reason: TunnelErrorCode; error: TunnelError }) => void;
  const closed = new Promise<{ reason: TunnelErrorCode; error: TunnelError }>((resolve) => {
    finish = resolve;
  });
  const fail = (error?: Error) => {
    clearTimeout(admissionTimer);
    const reason = asTunnelError(pipe.errored ?? error ?? new TunnelError('pipe-closed'), 'session-failed');
    if (!over.signal.aborted) {
      over.abort(reason);
      finish({ reason: reason.code, error: reason });
    }
    pipe.destroy(reason);
  };
  pipe.on('error', fail);
  pipe.once('close', () => fail());
  server.on('tlsClientError', fail);
  server.once('secureConnection', (socket) => {
    socket.on('error', fail);
    socket.once('close', () => fail());
    const h2 = performServerHandshake(socket, {
      settings: { initialWindowSize: streamWindow, maxConcurrentStreams: 1024 },
      maxSessionMemory,
    });
    h2.on('error', fail);
    h2.once('close', () => fail());
    over.signal.addEventListener('abort', () => h2.destroy(over.signal.reason as Error), { once: true });
    h2.on('stream', (stream, headers) => {
      // A stream breaks with its session or its peer; whoever uses it learns by `close`.
      stream.on('error', (error) => log.debug({ error: String(error) }, 'stream broke'));
      if (!admitted) requestsBeforeTicket += 1;
      if (requestsBeforeTicket > maxRequestsBeforeTicket)
        return fail(new TunnelError('ticket-missing', 'too many requests'));
      if (headers[':method'] === 'CONNECT') {
        void serveStream(stream, headers);
      } else if (headers[':method'] === 'POST' && headers[':path'] === helloPath && !admitted) {
        const accepted = admit(socket, headers);
        admitted = accepted.then(authorize);
        admitted.catch(() => {});
        accepted.then(
          (context) => {
            clearTimeout(admissionTimer);
            // Only now: before, an unknown client can make us hold no more than HTTP/2's default of 64 KiB.
            if (!h2.destroyed) h2.setLocalWindowSize(sessionWindow);
            const wait = /^\d{1,8}$/.exec(String(headers[waitHeader] ?? ''));
            if (wait && !pipe.destroyed)
              options.onResumable?.(resumeSecret(socket), Number(wait[0]) * 1000, context);
            options.onOpen?.(context);
            if (!stream.destroyed) {
              stream.respond({ ':status': 200, [sessionHeader]: context.sessionId }, { endStream: true });
            }
          },
          (thrown) => {
            const error = asTunnelError(thrown, 'ticket-invalid');
            log.warn({ code: error.code, detail: error.detail }, 'session refused');
            refuse(stream, error);
            // Gives the refusals time to leave, and ends the session.
            h2.close();
          },
        );
      } else if (headers[':method'] === 'POST' && headers[':path'] === offersPath && admitted) {
        const { offers } = options;
        const none = () => stream.respond({ ':status': 404 }, { endStream: true });
        if (!offers) return none();
        admitted.then(
          (context) => {
            if (stream.destroyed) return;
            // Whoever holds a limited ticket is no business of ours beyond it: where we are is not told.
            if (context.only) none();
            else serveOffers(stream, offers, context);
          },
          (error) => refuse(stream, asTunnelError(error, 'ticket-invalid')),
        );
      } else if (headers[':method'] === 'POST' && headers[':path'] === icePath && admitted) {
        void serveUdpSignaling(stream, admitted);
      } else {
        stream.respond({ ':status': 404 }, { endStream: true });
      }
    });
  });

  server.emit('connection', pipe);

  async function admit(socket: TLSSocket, headers: IncomingHttpHeaders): Promise<SessionContext> {
    const ticket = /^Bearer (\S+)$/.exec(headers.authorization ?? '')?.[1];
    const proof = headers[proofHeader];
    if (!ticket || typeof proof !== 'string') throw new TunnelError('ticket-missing');
    const keys = typeof options.ticketKeys === 'function' ? options.ticketKeys() : options.ticketKeys;
    const claims = await verifyTicket(ticket, keys, options.now?.());
    const { workspaceId } = options;
    if (claims.workspaceId !== (typeof workspaceId === 'function' ? workspaceId() : workspaceId))
      throw new TunnelError('ticket-wrong-workspace');
    if (claims.agentKey !== options.agentKey) throw new TunnelError('ticket-wrong-agent');
    if (!checkProof(socket, ticket, claims.clientKey, proof)) throw new TunnelError('ticket-proof-invalid');
    return {
      sessionId: randomUUID(),
      workspaceId: claims.workspaceId,
      userId: claims.userId,
      paths: claims.paths,
      only: claims.only ?? null,
      signal: over.signal,
    };
  }

  async function authorize(context: SessionContext): Promise<SessionContext> {
    try {
      await options.authorize?.(context);
    } catch (error) {
      log.warn({ code: (error as TunnelError).code }, 'session refused');
      // The streams that wait are refused first, with the same reason.
      setImmediate(() => fail(error as Error));
      throw error;
    }
    return context;
  }

  /** One line at once, and another whenever anything has changed. */
  function serveOffers(stream: ServerHttp2Stream, offers: OfferSource, context: SessionContext): void {
    stream.respond({ ':status': 200 });
    let last = '';
    const sendOffer = () => {
      const offer = offers.current();
      const paths = offer.paths.filter((kind) => context.paths.includes(kind));
      const line = formatOffer({ ...offer, paths });
      if (line !== last && !stream.destroyed && stream.writable) stream.write(line);
      last = line;
    };
    const stop = offers.onChange(sendOffer);
    stream.once('close', stop);
    stream.resume();
    stream.once('end', () => stream.end());
    sendOffer();
  }

  async function serveUdpSignaling(
    stream: ServerHttp2Stream,
    admission: Promise<SessionContext>,
  ): Promise<void> {
    try {
      const context = await admission;
      if (!options.serveUdpSignaling) throw new TunnelError('path-unsupported', 'this agent offers none');
      if (!isPathAllowed(options, 'direct-udp', context))
        throw new TunnelError('path-forbidden', 'direct-udp');
      const talk = options.serveUdpSignaling(context);
      stream.respond({ ':status': 200 });
      await talk(stream);
      stream.end();
    } catch (error) {
      refuse(stream, asTunnelError(error, 'path-unavailable'));
    }
  }

  async function serveStream(stream: ServerHttp2Stream, headers: IncomingHttpHeaders): Promise<void> {
    try {
      // HTTP/2 keeps the order of requests: a client's hello, if there is one, came before.
      if (!admitted) throw new TunnelError('ticket-missing');
      const context = await admitted;
      if (!isPathAllowed(options, pipe.path.kind, context))
        throw new TunnelError('path-forbidden', `this one is ${pipe.path.kind}`);
      const target = parseTarget(String(headers[targetHeader] ?? ''));
      if (context.only && !context.only.includes(formatTarget(target)))
        throw new TunnelError('target-forbidden', `the ticket opens ${context.only.join(', ')} alone`);
      const other = await options.onStream(target, writeFairly(stream), context);
      if (stream.destroyed) {
        other?.destroy();
        return;
      }
      if (!stream.headersSent) stream.respond({ ':status': 200 });
      if (other) await splice(stream, other);
    } catch (error) {
      refuse(stream, asTunnelError(error, 'target-failed'));
    }
  }

  return {
    close: (code = 'agent-closed') => pipe.destroy(new TunnelError(code)),
    closed,
  };
}

function refuse(stream: ServerHttp2Stream, error: TunnelError): void {
  if (stream.destroyed) return;
  if (stream.headersSent) stream.destroy(error);
  else stream.respond(errorHeaders(error), { endStream: true });
}
