import { randomUUID } from 'node:crypto';
import { type IncomingMessage, ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import { Problem } from '@cde/api/problem.ts';
import type { Log } from '@cde/tunnel/log.ts';
import proxyAddr from '@fastify/proxy-addr';
import { makeAdmission, visitorOf } from './admission.ts';
import { type BodyRate, checkFraming, defaultBodyRate, hasBody } from './bodies.ts';
import { closeGracefully, forwardRequest, forwardUpgrade, toUnreachable } from './forward.ts';
import type { Visit } from './headers.ts';
import type { RequestInterceptor } from './interceptor.ts';
import { sendProblem, sendRedirect } from './pages.ts';
import type { PortSessions, PortStream, PortTarget } from './sessions.ts';

/** What is judged of a request. */
export type RequestHead = Pick<IncomingMessage, 'method' | 'url' | 'headers'> & {
  /** Of the connection, which may be a proxy's. */
  ip: string;
};

/** What is to become of a request for a port. */
export type PortDecision<P extends PortTarget> =
  | { kind: 'redirect'; location: string; cookies?: string[] }
  | { kind: 'reply'; status: number; headers: Record<string, string> }
  | {
      kind: 'forward';
      port: P;
      visit: Omit<Visit, 'clientIp'>;
      path: string;
      extraHeaders?: Record<string, string>;
      /** Who is signed in, in a form that tells only the same from others; absent: nobody. */
      user?: string | undefined;
      /** Asked again for as long as it lasts: may they still? */
      isStillAllowed: () => Promise<boolean>;
    };

/** Answers a request, or throws a Problem; null where it is not for a port. Judging is all that it does. */
export type PortAuthorizer<P extends PortTarget> = (
  request: RequestHead,
) => (() => Promise<PortDecision<P>>) | null;

/** With the two seconds that an answer is remembered, well under the ten in which a suspension takes effect. */
const checkEveryMs = 4_000;

/** Whose word on a visitor's address is believed: addresses and networks with commas between. Throws where it is none. */
export const compileTrustProxy = (proxies: string) =>
  proxies ? proxyAddr.compile(proxies.split(',').map((address) => address.trim())) : () => false;

interface Exchange {
  isStillAllowed: () => Promise<boolean>;
  end: () => void;
}

export interface PortGateway extends RequestInterceptor {
  /** Requests and WebSockets that are carried at this moment. */
  readonly open: number;
  /** Asks of all that is open whether it still may be. */
  check(): Promise<void>;
  /** Ends all that is open. What comes later is judged as ever. */
  closeAll(): void;
  close(): void;
}

/** Takes the requests for ports out of a server's, has them judged, and carries those that may through. */
export function makePortGateway<P extends PortTarget>(options: {
  authorizers: PortAuthorizer<P>[];
  sessions: PortSessions<P>;
  /** The proxies whose word on the visitor's address is believed, separated by commas; '' none. */
  trustProxy: string;
  /** What to say of an error that is no Problem. */
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
      // It may have been ended while it waited.
      if (gone.signal.aborted) return;
      const opening = await sessions.connect(decision.port).catch((error) => {
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
      // Nobody is left to tell it to, and it is no reason to end for all.
      log.error({ err: thrown, requestId: id }, 'a refusal could not be sent');
      response.destroy();
      request.socket.destroy();
    }
  }

  /** Asks of each exchange whether it may still go on. A database that is away decides nothing. */
  async function check(): Promise<void> {
    await Promise.all(
      [...exchanges].map(async (exchange) => {
        const may = await exchange.isStillAllowed().catch((error) => {
          log.debug({ err: error }, 'whether a port may still be open was not looked up');
          return true;
        });
        if (!may) exchange.end();
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
          throw new Problem('bad-request', 'Only WebSockets are passed on.');
        if (hasBody(request)) throw new Problem('bad-request', 'A WebSocket begins with no body.');
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
