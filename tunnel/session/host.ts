import { randomUUID } from 'node:crypto';
import {
  type IncomingHttpHeaders,
  performServerHandshake,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2';
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
  visitHeader,
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
import { type PortVisit, parseVisit } from '../streams/visits.ts';

/** Limit for unauthenticated peers; our clients send their ticket first. */
const maxRequestsBeforeTicket = 16;

/** The client at the other end of a session. */
export interface SessionContext {
  sessionId: string;
  workspaceId: string;
  userId: string;
  /** The kinds of path that the ticket allows. */
  paths: readonly PathKind[];
  /** The targets that the ticket allows, in the form of formatTarget; null for all. */
  only: readonly string[] | null;
  /** Aborted when the session ends. */
  signal: AbortSignal;
}

export interface HostOptions {
  pipe: Pipe;
  /** PEM, from makeCertificate. */
  tlsKey: string;
  tlsCert: string;
  workspaceId: string | (() => string);
  /** The server's public keys (SPKI, base64url), or a function that returns the current ones. */
  ticketKeys: readonly string[] | (() => readonly string[]);
  /** This agent's key: makeCertificate's fingerprint. */
  agentKey: string;
  /**
   * Serves a stream. Return a Duplex (for example from connectTarget) to splice it with the stream, or nothing after
   * taking over the stream. Either way the client's stream then opens. Throw a TunnelError `target-…` to refuse.
   */
  onStream: (
    target: Target,
    stream: Duplex,
    context: SessionContext,
    /** Null if the client is no proxy of shared ports. */
    visit: PortVisit | null,
  ) => Promise<Duplex | undefined> | Duplex | undefined;
  /** Called once the ticket is accepted, if the client wants to be able to resume the session. */
  onResumable?: (secret: ResumeSecret, waitMs: number, context: SessionContext) => void;
  /** Kinds of path that may carry streams, in addition to the ticket's restriction. */
  paths?: () => readonly PathKind[];
  /** Other paths that the client may use. */
  offers?: OfferSource;
  /**
   * Starts looking for a UDP path with the client. The returned function signals over a stream until that is done.
   * Throws if UDP is not available. Called only if such paths are allowed.
   */
  serveUdpSignaling?: (context: SessionContext) => (stream: Duplex) => Promise<void>;
  /** Called once the ticket is accepted; streams wait for it. Reject to end the session before its first stream. */
  authorize?: (context: SessionContext) => Promise<void>;
  /** Called once the ticket is accepted. */
  onOpen?: (context: SessionContext) => void;
  /** The time at which tickets are verified. */
  now?: () => Date;
  /** Timeout for TLS and the ticket; default 10 s. */
  admissionTimeoutMs?: number;
  log?: Log;
}

export interface HostedSession {
  /** Ends the session, and sends the code to the client. */
  close(code?: TunnelErrorCode): void;
  /** Resolves when the session has ended; never rejects. `session-closed` if the client closed it. */
  readonly closed: Promise<{ reason: TunnelErrorCode; error: TunnelError }>;
}

/** True if paths of this kind may carry the session's streams. */
export function isPathAllowed(
  options: Pick<HostOptions, 'paths'>,
  kind: PathKind,
  context: Pick<SessionContext, 'paths'>,
): boolean {
  return context.paths.includes(kind) && (options.paths?.().includes(kind) ?? true);
}

/** The agent's side of one session on a pipe. An open session outlives its ticket. */
export function serveSession(options: HostOptions): HostedSession {
  const { pipe, log = silentLog } = options;
  const over = new AbortController();
  // Never listens: this is Node's public API for server-side TLS over an arbitrary stream.
  const server = createServer({
    key: options.tlsKey,
    cert: options.tlsCert,
    minVersion: 'TLSv1.3',
    maxVersion: 'TLSv1.3',
    ALPNProtocols: [alpn],
  });
  /** Set by the first hello; streams wait for it and for `authorize`. */
  let admitted: Promise<SessionContext> | undefined;
  let requestsBeforeTicket = 0;

  const admissionTimer = setTimeout(
    () => pipe.destroy(new TunnelError('session-timeout', 'the client sent no ticket in time')),
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
      // Streams break with their session or peer; their users notice by `close`.
      stream.on('error', (error) => log.debug({ error: String(error) }, 'stream error'));
      if (!admitted) requestsBeforeTicket += 1;
      if (requestsBeforeTicket > maxRequestsBeforeTicket)
        return fail(new TunnelError('ticket-missing', 'too many requests'));
      if (headers[':method'] === 'CONNECT') return void serveStream(stream, headers);
      const path = headers[':method'] === 'POST' ? headers[':path'] : undefined;
      if (path === helloPath && !admitted) serveHello(socket, h2, stream, headers);
      else if (path === offersPath && admitted) void serveOffers(stream, admitted);
      else if (path === icePath && admitted) void serveUdpSignaling(stream, admitted);
      else notFound(stream);
    });
  });

  server.emit('connection', pipe);

  function serveHello(
    socket: TLSSocket,
    h2: ServerHttp2Session,
    stream: ServerHttp2Stream,
    headers: IncomingHttpHeaders,
  ): void {
    const accepted = admit(socket, headers);
    admitted = accepted.then(authorize);
    admitted.catch(() => {});
    accepted.then(
      (context) => {
        clearTimeout(admissionTimer);
        // Not earlier: until then HTTP/2's default of 64 KiB bounds what an unknown client can make us buffer.
        if (!h2.destroyed) h2.setLocalWindowSize(sessionWindow);
        const wait = /^\d{1,8}$/.exec(String(headers[waitHeader] ?? ''));
        if (wait && !pipe.destroyed)
          options.onResumable?.(resumeSecret(socket), Number(wait[0]) * 1000, context);
        options.onOpen?.(context);
        if (!stream.destroyed)
          stream.respond({ ':status': 200, [sessionHeader]: context.sessionId }, { endStream: true });
      },
      (thrown) => {
        const error = asTunnelError(thrown, 'ticket-invalid');
        log.warn({ code: error.code, detail: error.detail }, 'session refused');
        refuse(stream, error);
        // Ends the session after the refusals have been sent.
        h2.close();
      },
    );
  }

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
      // Waiting streams are refused first, with the same error.
      setImmediate(() => fail(error as Error));
      throw error;
    }
    return context;
  }

  /** Sends the current offer, and another line whenever it changes. */
  async function serveOffers(stream: ServerHttp2Stream, admission: Promise<SessionContext>): Promise<void> {
    const { offers } = options;
    if (!offers) return notFound(stream);
    let context: SessionContext;
    try {
      context = await admission;
    } catch (error) {
      return refuse(stream, asTunnelError(error, 'ticket-invalid'));
    }
    if (stream.destroyed) return;
    // Holders of a limited ticket do not learn where the agent is.
    if (context.only) return notFound(stream);
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
      if (!options.serveUdpSignaling)
        throw new TunnelError('path-unsupported', 'the agent does not offer it');
      if (!isPathAllowed(options, 'direct-udp', context))
        throw new TunnelError('path-forbidden', 'direct-udp');
      const signal = options.serveUdpSignaling(context);
      stream.respond({ ':status': 200 });
      await signal(stream);
      stream.end();
    } catch (error) {
      refuse(stream, asTunnelError(error, 'path-unavailable'));
    }
  }

  async function serveStream(stream: ServerHttp2Stream, headers: IncomingHttpHeaders): Promise<void> {
    try {
      // HTTP/2 preserves the order of requests, so a hello would have arrived before.
      if (!admitted) throw new TunnelError('ticket-missing');
      const context = await admitted;
      if (!isPathAllowed(options, pipe.path.kind, context))
        throw new TunnelError('path-forbidden', `the current path is ${pipe.path.kind}`);
      const target = parseTarget(String(headers[targetHeader] ?? ''));
      if (context.only && !context.only.includes(formatTarget(target)))
        throw new TunnelError('target-forbidden', `the ticket only allows ${context.only.join(', ')}`);
      const told = headers[visitHeader];
      const visit = parseVisit(told === undefined ? undefined : String(told));
      const other = await options.onStream(target, writeFairly(stream), context, visit);
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

const notFound = (stream: ServerHttp2Stream) => stream.respond({ ':status': 404 }, { endStream: true });

function refuse(stream: ServerHttp2Stream, error: TunnelError): void {
  if (stream.destroyed) return;
  if (stream.headersSent) stream.destroy(error);
  else stream.respond(errorHeaders(error), { endStream: true });
}
