import {
  type IncomingHttpHeaders,
  performServerHandshake,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2';
import { createServer, type TLSSocket } from 'node:tls';
import {
  alpn,
  helloPath,
  icePath,
  legPath,
  maxSessionMemory,
  offersPath,
  sessionHeader,
  sessionWindow,
  streamWindow,
  waitHeader,
} from '../auth/handshake.ts';
import { asTunnelError, TunnelError, type TunnelErrorCode } from '../errors.ts';
import { type Log, silentLog } from '../log.ts';
import { type ResumeSecret, resumeSecret } from '../pipe/resume.ts';
import { type AdmissionOptions, admit, type SessionContext } from './admission.ts';
import { makeLegMeter, serveLeg } from './legs.ts';
import {
  notFound,
  type RequestOptions,
  refuse,
  serveOffers,
  serveStream,
  serveUdpSignaling,
} from './requests.ts';

/** Limit for unauthenticated peers; our clients send their ticket first. */
const maxRequestsBeforeTicket = 16;

export interface HostOptions extends AdmissionOptions, RequestOptions {
  /** PEM, from makeCertificate. */
  tlsKey: string;
  tlsCert: string;
  /** Called once the ticket is accepted, if the client wants to be able to resume the session. */
  onResumable?: (secret: ResumeSecret, waitMs: number, context: SessionContext) => void;
  /** Called once the ticket is accepted; streams wait for it. Reject to end the session before its first stream. */
  authorize?: (context: SessionContext) => Promise<void>;
  /** Called once the ticket is accepted. */
  onOpen?: (context: SessionContext) => void;
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
  const measureLeg = makeLegMeter(pipe);

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
      if (headers[':method'] === 'CONNECT') return void serveStream(stream, headers, admitted, options);
      const path = headers[':method'] === 'POST' ? headers[':path'] : undefined;
      if (path === helloPath && !admitted) serveHello(socket, h2, stream, headers);
      else if (path === offersPath && admitted) void serveOffers(stream, admitted, options);
      else if (path === icePath && admitted) void serveUdpSignaling(stream, admitted, options);
      else if (path === legPath && admitted) void serveLeg(stream, admitted, measureLeg);
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
    const accepted = admit(socket, headers, options, over.signal);
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

  return {
    close: (code = 'agent-closed') => pipe.destroy(new TunnelError(code)),
    closed,
  };
}
