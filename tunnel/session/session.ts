import type { KeyObject } from 'node:crypto';
import { type ClientHttp2Session, connect as connectHttp2 } from 'node:http2';
import type { Duplex } from 'node:stream';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import {
  alpn,
  awaitResponse,
  helloPath,
  makeProof,
  maxSessionMemory,
  offersPath,
  proofHeader,
  sessionHeader,
  sessionWindow,
  streamWindow,
  targetHeader,
  waitHeader,
} from '../auth/handshake.ts';
import { fingerprint } from '../auth/keys.ts';
import { makeTicketHolder, type Ticket, type TicketHolder } from '../auth/ticket-holder.ts';
import { asTunnelError, TunnelError, type TunnelErrorCode } from '../errors.ts';
import type { UdpOptions } from '../paths/direct-udp.ts';
import { dialRelay } from '../paths/relay.ts';
import type { SocketTimes } from '../paths/socket.ts';
import { makeLink } from '../pipe/link.ts';
import type { Path } from '../pipe/path.ts';
import { makePipe, type Pipe } from '../pipe/pipe.ts';
import {
  makeResumeHandshake,
  type ResumeHandshake,
  type ResumeSecret,
  resumeSecret,
} from '../pipe/resume.ts';
import {
  type History,
  lostChange,
  makeHistory,
  type PathChange,
  type PathMeasure,
  resumedChange,
} from '../selection/history.ts';
import { rankSatellites } from '../selection/measure.ts';
import { makeOfferReader, type Offer } from '../selection/offers.ts';
import {
  defaultWaitMs,
  type ReconnectOptions,
  type RouteProvider,
  reconnectPipe,
} from '../selection/reconnect.ts';
import { makeRoutes, type RouteOptions, type Routes } from '../selection/routes.ts';
import { type Steering, type SteerOptions, steerPaths } from '../selection/steer.ts';
import type { FindUdpPath } from '../selection/udp-candidate.ts';
import { writeFairly } from '../streams/fair-write.ts';
import { formatTarget, type Target } from '../streams/targets.ts';
import { makeUdpFinder } from './udp-signaling.ts';

/**
 * A TicketReply and the private half of the key that the ticket was made for: `{...reply, clientPrivateKey}`.
 * With `renewTicket` the session outlives its path: it looks for another one for up to `waitMs`, and its
 * streams go on there byte for byte. Without, it ends with its path.
 */
export interface SessionOptions
  extends Ticket,
    SocketTimes,
    Partial<Pick<ReconnectOptions, 'waitMs' | 'onPath' | 'clock'>>,
    Pick<RouteOptions, 'dial' | 'unansweredMs'> {
  clientPrivateKey: KeyObject;
  /**
   * Gets a fresh ticket, for as often as the one at hand may not do. A TunnelError that it rejects with ends
   * the session (`workspace-stopped`, `ticket-refused`, …); after any other it is asked again later.
   */
  renewTicket?: () => Promise<Ticket>;
  /**
   * With `renewTicket`: begins at the nearest satellite, and moves to a better path when there is one. Without, the
   * session stays where it opens, and the satellites are tried in their order.
   */
  steer?: SteerOptions;
  /** How paths by UDP are looked for; the STUN servers are those of the ticket's satellites. */
  udp?: Partial<Pick<UdpOptions, 'bindAddress' | 'timeoutMs'>>;
  /** Told of each choice and change of the path, as `history` keeps them. */
  onChange?: (change: PathChange) => void;
  /** Calls off the opening; a session once open is ended with `close`. */
  signal?: AbortSignal;
  /** From the admitted dial to the agent's TLS answer; default 10 s. Includes the satellite's wait for an agent. */
  handshakeTimeoutMs?: number;
}

export interface SessionEnd {
  /** `session-closed` when `close` was called, else why it broke. */
  reason: TunnelErrorCode;
  error: TunnelError | null;
}

export interface SessionInfo {
  sessionId: string;
}

export interface Session {
  /**
   * Opens a stream to a target. Resolves when the agent has connected it; rejects with `target-…`, or with
   * what refused or ended the session (`ticket-…`, `agent-lost`, …). With `eager` it resolves at once, what is
   * written goes out with the request, and a refusal destroys the stream with the same errors. The stream
   * can be half-closed (`end`); attach an `error` listener.
   */
  open(target: Target, options?: { eager?: boolean }): Promise<Duplex>;
  /** The round trip to the agent and back, in milliseconds. */
  ping(): Promise<number>;
  /** Ends it at once: streams that are open close, without an error. */
  close(): void;
  /** Resolves when the agent has accepted the ticket, rejects when it refuses. `open` need not wait for it. */
  readonly ready: Promise<SessionInfo>;
  /** Resolves, never rejects, when the session is over. */
  readonly closed: Promise<SessionEnd>;
  /** The active path, or the last one while there is none. */
  readonly path: Path;
  /** Each choice and change of the path, with its reason and what was measured, oldest first; the last 200. */
  readonly history: readonly PathChange[];
}

/** Where another satellite may do better; all else is final. */
const retryElsewhere: ReadonlySet<TunnelErrorCode> = new Set([
  'satellite-unreachable',
  'satellite-refused',
  'satellite-lost',
  'satellite-restarted',
  'satellite-draining',
  'satellite-overloaded',
  'agent-not-connected',
  'agent-lost',
  'session-timeout',
]);

/** The longest wait for the satellites' answers before any of them is dialled. */
const rankTimeoutMs = 1_000;

/**
 * Opens a session with a workspace's agent: dials its satellites in turn, then TLS 1.3 with the agent's key
 * pinned. The ticket is shown to the agent together with the first streams, so that no round trip is spent on
 * it. Rejects with a TunnelError: that of the last satellite tried.
 */
export async function openSession(options: SessionOptions): Promise<Session> {
  let last = new TunnelError('satellite-unreachable', 'the ticket names no satellite');
  const { steer } = options;
  let measured: PathMeasure[] = [];
  let satellites = options.satellites;
  if (steer?.book && satellites.length > 1) {
    const ranked = await rankSatellites(satellites, steer.book, {
      timeoutMs: rankTimeoutMs,
      signal: options.signal ?? new AbortController().signal,
      ...(steer.prober && { prober: steer.prober }),
    });
    satellites = ranked.map(({ satellite: place }) => place);
    measured = ranked.map(({ satellite: place, ...rest }) => ({ kind: 'relay', via: place.url, ...rest }));
  }
  for (const satellite of satellites) {
    try {
      const path = await dialRelay({ ...options, url: satellite.url });
      return await openSessionOver(path, options, measured);
    } catch (thrown) {
      last = asTunnelError(thrown, options.signal?.aborted ? 'session-aborted' : 'session-failed');
      if (options.signal?.aborted || !retryElsewhere.has(last.code)) throw last;
    }
  }
  throw last;
}

type OverOptions = Omit<SessionOptions, 'satellites'> & Partial<Pick<SessionOptions, 'satellites'>>;

/** Opens a session over a path that is already open; `measured` is why over this one. */
export async function openSessionOver(
  path: Path,
  options: OverOptions,
  measured: PathMeasure[] = [],
): Promise<Session> {
  const pipe = makePipe({ path, clock: options.clock });
  try {
    const socket = await handshake(pipe, options);
    const { session, requireDirect } = makeSession(pipe, socket, options, measured);
    try {
      if (requireDirect) await session.ready.then(requireDirect);
    } catch (error) {
      session.close();
      throw error;
    }
    return session;
  } catch (error) {
    pipe.on('error', () => {});
    pipe.destroy(asTunnelError(error, 'session-failed'));
    throw error;
  }
}

/** TLS 1.3 over the pipe. Nothing of ours is sent before the agent has proved to hold the pinned key. */
function handshake(
  pipe: Pipe,
  options: Pick<SessionOptions, 'agentKey' | 'signal' | 'handshakeTimeoutMs'>,
): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    options.signal?.throwIfAborted();
    const socket = connectTls({
      socket: pipe,
      ALPNProtocols: [alpn],
      minVersion: 'TLSv1.3',
      maxVersion: 'TLSv1.3',
      // The certificate is self-signed by design. Its key is compared below, before anything is written.
      rejectUnauthorized: false,
    });
    const settle = (error: TunnelError | null) => {
      clearTimeout(timer);
      options.signal?.removeEventListener('abort', abort);
      for (const emitter of [pipe, socket]) {
        emitter.off('error', fail);
        emitter.off('close', close);
      }
      if (!error) return resolve(socket);
      socket.on('error', () => {});
      reject(error);
    };
    // The pipe's own error says more than what TLS makes of it, and comes first or in the same turn.
    const fail = (error: Error) =>
      queueMicrotask(() => settle(asTunnelError(pipe.errored ?? error, 'session-failed')));
    const close = () => fail(new TunnelError('pipe-closed'));
    const abort = () => settle(new TunnelError('session-aborted'));
    const timer = setTimeout(
      () => settle(new TunnelError('session-timeout')),
      options.handshakeTimeoutMs ?? 10_000,
    );
    options.signal?.addEventListener('abort', abort, { once: true });
    for (const emitter of [pipe, socket]) {
      emitter.on('error', fail);
      emitter.on('close', close);
    }
    socket.once('secureConnect', () => {
      const key = socket.getPeerX509Certificate()?.publicKey;
      if (!key || fingerprint(key) !== options.agentKey) return settle(new TunnelError('agent-key-mismatch'));
      if (socket.alpnProtocol !== alpn)
        return settle(new TunnelError('session-failed', 'no common protocol'));
      settle(null);
    });
  });
}

/** `insist` is to be waited for before the session carries anything. */
function makeSession(
  pipe: Pipe,
  socket: TLSSocket,
  options: OverOptions,
  measured: PathMeasure[],
): { session: Session; requireDirect: (() => Promise<void>) | undefined } {
  const h2 = connectHttp2('https://workspace', {
    createConnection: () => socket,
    settings: { initialWindowSize: streamWindow, enablePush: false },
    maxSessionMemory,
  });
  h2.once('connect', () => {
    if (!h2.destroyed) h2.setLocalWindowSize(sessionWindow);
  });

  let end: SessionEnd | undefined;
  let resolveClosed: (end: SessionEnd) => void;
  const closed = new Promise<SessionEnd>((resolve) => {
    resolveClosed = resolve;
  });
  const finish = (error: TunnelError | null) => {
    if (end) return;
    end = { reason: error?.code ?? 'session-closed', error };
    // Both in this turn, before TLS learns of it: the agent and the streams are told the reason itself.
    pipe.destroy(error ?? new TunnelError('session-closed'));
    if (error) h2.destroy(error);
    else h2.destroy();
    resolveClosed(end);
  };
  const fail = (error?: Error) =>
    finish(asTunnelError(pipe.errored ?? error ?? new TunnelError('agent-closed'), 'session-failed'));
  pipe.on('error', fail);
  pipe.once('close', () => fail());
  pipe.once('end', () => fail());
  socket.on('error', fail);
  h2.on('error', fail);
  h2.once('close', () => fail());

  const { renewTicket, waitMs = defaultWaitMs } = options;
  const ready = hello(h2, {
    authorization: `Bearer ${options.ticket}`,
    [proofHeader]: makeProof(socket, options.ticket, options.clientPrivateKey),
    ...(renewTicket && { [waitHeader]: String(Math.ceil(waitMs / 1000)) }),
  });
  const history = makeHistory(options.onChange);
  history.add({
    what: 'opened',
    kind: pipe.path.kind,
    via: pipe.path.via,
    reason: measured.length > 1 ? 'nearest' : 'first',
    text: measured.length > 1 ? 'least round trip from here to the agent' : 'the first that answered',
    measured,
  });
  let steering: Steering | undefined;
  const tickets = makeTicketHolder(
    { ...options, satellites: options.satellites ?? [] },
    renewTicket ?? (() => Promise.reject(new TunnelError('ticket-expired'))),
  );
  const findUdpPath = makeUdpFinder({ ...options.udp, ...options, h2, pipe, tickets });
  if (renewTicket) {
    let isAccepted = false;
    ready.then(
      () => {
        isAccepted = true;
      },
      () => {},
    );
    const secret = resumeSecret(socket);
    const routes = makeRoutes({ ...options, secret, tickets });
    if (options.steer) {
      steering = steerPaths({
        ...options,
        pipe,
        routes,
        secret,
        findUdpPath: findUdpPath,
        reestablishUdp: (signal) => reestablishUdp(options, tickets, secret, signal),
        tickets,
        history,
        steer: options.steer,
      });
      readOffers(h2, steering.offer);
    }
    const guide = steering ?? makePlainGuide({ pipe, routes, tickets, history });
    reconnectPipe(pipe, { ...options, tickets, guide, onEnd: finish, isAccepted: () => isAccepted });
  }
  // A refusal ends the session; those who wait for `ready` or a stream get the reason as well.
  ready.catch((error) => finish(asTunnelError(error, 'session-failed')));

  const session: Session = {
    async open(target, { eager = false } = {}) {
      if (end) throw end.error ?? new TunnelError('session-closed');
      const stream = writeFairly(
        h2.request({
          ':method': 'CONNECT',
          ':authority': 'workspace',
          [targetHeader]: formatTarget(target),
        }),
      );
      const opened = awaitResponse(stream).then(
        () => stream as Duplex,
        (error) => {
          const reason = end?.error ?? asTunnelError(error, 'session-failed');
          stream.destroy(eager ? reason : undefined);
          throw reason;
        },
      );
      if (!eager) return opened;
      opened.catch(() => {});
      return stream;
    },
    ping: () =>
      new Promise((resolve, reject) => {
        const fail = (error: unknown) => reject(end?.error ?? asTunnelError(error, 'session-closed'));
        try {
          h2.ping((error, duration) => (error ? fail(error) : resolve(duration)));
        } catch (error) {
          fail(error);
        }
      }),
    close: () => finish(null),
    ready,
    closed,
    get path() {
      return pipe.path;
    },
    history: history.all,
  };
  udpFinders.set(session, findUdpPath);
  const requiresDirect = steering && !options.steer?.paths.includes('relay');
  return { session, requireDirect: requiresDirect ? steering?.requireDirect : undefined };
}

/** How each session finds paths by UDP. */
const udpFinders = new WeakMap<Session, FindUdpPath>();
/** It has just been found: the agent answers at once, or not at all. */
const reestablishTimeoutMs = 3_000;

/**
 * For a session that may use UDP alone and has lost it: with nothing left to talk over, a second session with the same
 * ticket, through a satellite, arranges another path for the first, and ends.
 */
async function reestablishUdp(
  options: OverOptions,
  tickets: TicketHolder,
  secret: ResumeSecret,
  signal: AbortSignal,
): Promise<ResumeHandshake> {
  const { steer: _steer, renewTicket: _renew, onChange: _told, ...rest } = options;
  const { ticket, satellites } = tickets;
  const helper = await openSession({ ...rest, ticket, satellites, signal });
  try {
    const path = await udpFinders.get(helper)!(signal);
    const contact = makeResumeHandshake(makeLink(path), secret, { timeoutMs: reestablishTimeoutMs, signal });
    return {
      ...contact,
      // With the answer the agent has taken the path, and nobody is needed in between.
      ask: (position) => contact.ask(position).finally(() => helper.close()),
      drop() {
        helper.close();
        contact.drop();
      },
    };
  } catch (error) {
    helper.close();
    throw error;
  }
}

/** Without steering: the satellites of the ticket, in their order. */
function makePlainGuide(options: {
  pipe: Pipe;
  routes: Routes;
  tickets: TicketHolder;
  history: History;
}): RouteProvider {
  const { pipe, routes, tickets, history } = options;
  return {
    lost: (reason) => history.add(lostChange(pipe.path, reason)),
    routes: () => tickets.satellites.map(({ url }) => routes.relay(url)),
    resumed: (route, afterMs) => history.add(resumedChange(route, afterMs, [])),
  };
}

/** Listens to what the agent offers for as long as the session lasts; null: it is of a release that offers nothing. */
function readOffers(h2: ClientHttp2Session, onOffer: (offer: Offer | null) => void): void {
  const stream = h2.request({ ':method': 'POST', ':path': offersPath });
  stream.on('error', () => {});
  stream.once('response', (headers) => {
    if (headers[':status'] === 200) return;
    onOffer(null);
    stream.close();
  });
  stream.setEncoding('utf8').on('data', makeOfferReader(onOffer));
}

async function hello(h2: ClientHttp2Session, headers: Record<string, string>): Promise<SessionInfo> {
  const stream = h2.request({ ':method': 'POST', ':path': helloPath, ...headers }, { endStream: true });
  stream.resume();
  const reply = await awaitResponse(stream);
  return { sessionId: String(reply[sessionHeader]) };
}
