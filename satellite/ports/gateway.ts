import { createHash, randomUUID } from 'node:crypto';
import { type IncomingMessage, ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import { Problem } from '@cde/api/problem.ts';
import type { Log } from '@cde/tunnel/log.ts';
import type { PortVisit } from '@cde/tunnel/streams/visits.ts';
import proxyAddr from '@fastify/proxy-addr';
import { makeAdmission, visitorOf } from './admission.ts';
import { type BodyRate, checkFraming, defaultBodyRate, hasBody } from './bodies.ts';
import { closeGracefully, forwardRequest, forwardUpgrade, toUnreachable } from './forward.ts';
import type { Visit } from './headers.ts';
import type { RequestInterceptor } from './interceptor.ts';
import { sendProblem, sendRedirect } from './pages.ts';
import type { PortSessions, PortStream, PortTarget } from './sessions.ts';

/** The parts of a request that authorization depends on. */
export type RequestHead = Pick<IncomingMessage, 'method' | 'url' | 'headers'> & {
  /** Address of the connection, which may be a proxy's. */
  ip: string;
};

/** The decision about a request for a port. */
export type PortDecision<P extends PortTarget> =
  | { kind: 'redirect'; location: string; cookies?: string[] }
  | { kind: 'reply'; status: number; headers: Record<string, string> }
  | {
      kind: 'forward';
      port: P;
      visit: Omit<Visit, 'clientIp'>;
      path: string;
      extraHeaders?: Record<string, string>;
      /** An opaque key of the signed-in user; absent if anonymous. */
      user?: string | undefined;
      /** Who is signed in in the browser; null if the name is not known here, absent if nobody is. */
      visitorName?: string | null | undefined;
      /** Called every few seconds while the exchange is open; false ends it. */
      isStillAllowed: () => Promise<boolean>;
    };

/** Returns null if the request is not for a port, otherwise a function that decides or throws a Problem. */
export type PortAuthorizer<P extends PortTarget> = (
  request: RequestHead,
) => (() => Promise<PortDecision<P>>) | null;

/** Together with the two seconds of caching, well below the ten seconds within which a suspension must take effect. */
const checkEveryMs = 4_000;

/** Compiles a comma-separated list of trusted proxy addresses and networks. Throws if it is invalid. */
export const compileTrustProxy = (proxies: string) =>
  proxies ? proxyAddr.compile(proxies.split(',').map((address) => address.trim())) : () => false;

/** Tells the agent what kind of request this is. */
function visitOf(
  { method = 'GET', url = '/', headers }: IncomingMessage,
  { visitorName }: { visitorName?: string | null | undefined },
): PortVisit {
  const key = createHash('sha256')
    .update(`${method} ${url.split('?', 1)[0]}`)
    .digest('base64url')
    .slice(0, 12);
  const isSpeculative = /prefetch|prerender/.test(`${headers['sec-purpose'] ?? ''} ${headers.purpose ?? ''}`);
  const accept = headers.accept ?? '';
  let kind: PortVisit['kind'] = 'request';
  if (visitorName === undefined || isSpeculative || ['HEAD', 'OPTIONS'].includes(method)) kind = 'other';
  else if (headers.upgrade !== undefined) kind = 'socket';
  // Opened and reopened by pages.
  else if (/text\/event-stream/.test(accept)) kind = 'other';
  else if (headers['sec-fetch-mode'] === 'navigate') kind = 'navigation';
  return { kind, key, username: visitorName ?? null };
}

interface Exchange {
  isStillAllowed: () => Promise<boolean>;
  end: () => void;
}

export interface PortGateway extends RequestInterceptor {
  /** Number of open requests and WebSockets. */
  readonly open: number;
  /** Rechecks all open exchanges. */
  check(): Promise<void>;
  /** Ends all open exchanges; new requests are still accepted. */
  closeAll(): void;
  close(): void;
}

/** Intercepts a server's requests for ports, authorizes them and proxies the allowed ones to workspaces. */
export function makePortGateway<P extends PortTarget>(options: {
  authorizers: PortAuthorizer<P>[];
  sessions: PortSessions<P>;
  /** Trusted proxies, separated by commas; '' for none. */
  trustProxy: string;
  /** Converts errors to what the visitor sees. */
  toProblem: (error: unknown) => Problem;
  bodyRate?: BodyRate;
  log: Log;
}): PortGateway {
  const { authorizers, sessions, toProblem, bodyRate = defaultBodyRate, log } = options;
  const admission = makeAdmission();
  const exchanges = new Set<Exchange>();
  const slowBodySockets = new WeakSet<Duplex>();
  const trusted = compileTrustProxy(options.trustProxy);

  const find = ({ method, url, headers, socket }: IncomingMessage) => {
    for (const judge of authorizers) {
      const found = judge({ method, url, headers, ip: socket.remoteAddress ?? '' });
      if (found) return found;
    }
    return null;
  };

  async function forward(
    decision: Extract<PortDecision<P>, { kind: 'forward' }>,
    request: IncomingMessage,
    end: () => void,
    carry: (passage: PortStream & { path: string; visit: Visit }) => Promise<void>,
  ) {
    const exchange = { isStillAllowed: decision.isStillAllowed, end };
    exchanges.add(exchange);
    slowBodySockets.add(request.socket);
    const gone = new AbortController();
    const leave = () => gone.abort();
    request.socket.once('close', leave);
    let release = () => {};
    try {
      const visit = { ...decision.visit, clientIp: proxyAddr(request, trusted) };
      const visitor = visitorOf(decision.user, visit.clientIp);
      release = await admission.admit(decision.port.workspaceId, visitor, gone.signal);
      // The visitor may have left while waiting.
      if (gone.signal.aborted) return;
      const opening = await sessions.connect(decision.port, visitOf(request, decision)).catch((error) => {
        throw error instanceof Problem ? error : toUnreachable(error, decision.port.port);
      });
      if (request.socket.destroyed) return void opening.stream.destroy();
      await carry({ ...opening, path: decision.path, visit });
    } finally {
      release();
      request.socket.off('close', leave);
      exchanges.delete(exchange);
      slowBodySockets.delete(request.socket);
    }
  }

  function reject(request: IncomingMessage, response: ServerResponse, error: unknown) {
    const problem = toProblem(error);
    const id = randomUUID();
    if (problem.status >= 500 && problem.code !== 'port-unreachable')
      log.warn({ err: problem.cause ?? problem, requestId: id }, problem.message);
    try {
      sendProblem(request, response, problem, id);
    } catch (thrown) {
      // Must not end the process for everyone else.
      log.error({ err: thrown, requestId: id }, 'cannot send an error response');
      response.destroy();
      request.socket.destroy();
    }
  }

  /** Ends exchanges that are no longer allowed. If that cannot be checked they continue. */
  async function check(): Promise<void> {
    await Promise.all(
      [...exchanges].map(async (exchange) => {
        const isAllowed = await exchange.isStillAllowed().catch((error) => {
          log.debug({ err: error }, 'cannot check whether a port is still allowed');
          return true;
        });
        if (!isAllowed) exchange.end();
      }),
    );
  }
  const timer = setInterval(() => void check(), checkEveryMs);
  timer.unref();

  return {
    request(request, response) {
      const authorize = find(request);
      if (!authorize) return false;
      (async () => {
        checkFraming(request, response);
        const decision = await authorize();
        if (decision.kind === 'redirect')
          return sendRedirect(request, response, decision.location, decision.cookies);
        if (decision.kind === 'reply') {
          response.writeHead(decision.status, decision.headers);
          return void response.end();
        }
        await forward(
          decision,
          request,
          () => void response.destroy(),
          (passage) =>
            forwardRequest(request, response, {
              ...passage,
              bodyRate,
              ...(decision.extraHeaders && { extraHeaders: decision.extraHeaders }),
            }),
        );
      })().catch((error) => reject(request, response, error));
      return true;
    },
    upgrade(request, socket, head) {
      const authorize = find(request);
      if (!authorize) return false;
      socket.on('error', () => {});
      (async () => {
        if (request.headers.upgrade?.toLowerCase() !== 'websocket' || request.method !== 'GET')
          throw new Problem('bad-request', 'Only WebSocket upgrades are supported.');
        if (hasBody(request)) throw new Problem('bad-request', 'A WebSocket handshake cannot have a body.');
        const decision = await authorize();
        if (decision.kind !== 'forward')
          throw new Problem('sign-in-required', 'You are not signed in.', {
            hint: 'Open a page of this port first.',
          });
        await forward(
          decision,
          request,
          () => void socket.destroy(),
          (passage) => forwardUpgrade(request, socket, head, passage),
        );
      })().catch((error) => {
        if (socket.destroyed) return;
        const response = new ServerResponse(request);
        response.assignSocket(socket as never);
        response.shouldKeepAlive = false;
        response.once('finish', () => closeGracefully(socket));
        reject(request, response, error);
      });
      return true;
    },
    allowsSlowBody: (socket) => slowBodySockets.has(socket),
    get open() {
      return exchanges.size;
    },
    check,
    closeAll() {
      for (const { end } of exchanges) end();
      sessions.closeAll();
    },
    close() {
      clearInterval(timer);
      for (const { end } of exchanges) end();
      sessions.close();
    },
  };
}
