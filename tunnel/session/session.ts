import type { KeyObject } from 'node:crypto';
import { type ClientHttp2Session, connect as connectHttp2 } from 'node:http2';
import type { Duplex } from 'node:stream';
import type { TLSSocket } from 'node:tls';
import {
  awaitResponse,
  helloPath,
  makeProof,
  maxSessionMemory,
  offersPath,
  proofHeader,
  sessionHeader,
  sessionWindow,
  streamWindow,
  waitHeader,
} from '../auth/handshake.ts';
import { makeTicketHolder, type Ticket, type TicketHolder } from '../auth/ticket-holder.ts';
import { asTunnelError, TunnelError, type TunnelErrorCode } from '../errors.ts';
import type { UdpOptions } from '../paths/direct-udp.ts';
import { dialRelay } from '../paths/relay.ts';
import type { SocketTimes } from '../paths/socket.ts';
import type { Path } from '../pipe/path.ts';
import { makePipe, type Pipe } from '../pipe/pipe.ts';
import { resumeSecret } from '../pipe/resume.ts';
import {
  type History,
  lostChange,
  makeHistory,
  type PathChange,
  type PathMeasure,
  resumedChange,
} from '../selection/history.ts';
import { rankSatellites } from '../selection/measure.ts';
import type { PathOutlook } from '../selection/obstacles.ts';
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
import type { Target } from '../streams/targets.ts';
import type { PortVisit } from '../streams/visits.ts';
import { measureRoundTrip, type RoundTrip } from './legs.ts';
import { Lifetime, type SessionEnd } from './lifetime.ts';
import { reestablishUdp } from './reestablish.ts';
import { openStream, pingAgent } from './streams.ts';
import { connectTls } from './tls.ts';
import { makeUdpFinder } from './udp-signaling.ts';

/**
 * A TicketReply and the private key that the ticket was issued for: `{...reply, clientPrivateKey}`. With `renewTicket`
 * the session survives its path: it looks for another one for up to `waitMs` and its streams continue there byte for
 * byte. Without, it ends with its path.
 */
export interface SessionOptions
  extends Ticket,
    SocketTimes,
    Partial<Pick<ReconnectOptions, 'waitMs' | 'onPath' | 'clock'>>,
    Pick<RouteOptions, 'dial' | 'unansweredMs'> {
  clientPrivateKey: KeyObject;
  /**
   * Gets a fresh ticket when the current one may no longer be valid. If it rejects with a TunnelError the session ends
   * (`workspace-stopped`, `ticket-refused`, …); after other errors it is called again later.
   */
  renewTicket?: () => Promise<Ticket>;
  /**
   * Requires `renewTicket`. Starts at the nearest satellite and moves to better paths. Without it, satellites are
   * tried in order and the session stays on the path it opened on.
   */
  steer?: SteerOptions;
  /** Options for paths by UDP. The STUN servers are those of the ticket's satellites. */
  udp?: Partial<Pick<UdpOptions, 'bindAddress' | 'timeoutMs'>>;
  /** Called for each entry of `history`. */
  onChange?: (change: PathChange) => void;
  /** Aborts opening the session. Once it is open, use `close`. */
  signal?: AbortSignal;
  /** Timeout for the TLS handshake, including the satellite's wait for an agent; default 10 s. */
  handshakeTimeoutMs?: number;
}

export type { RoundTrip } from './legs.ts';
export type { SessionEnd } from './lifetime.ts';

export interface SessionInfo {
  sessionId: string;
}

export interface Session {
  /**
   * Opens a stream to a target. Resolves when the agent has connected it. Rejects with `target-…`, or with the reason
   * the session was refused or ended (`ticket-…`, `agent-lost`, …). With `eager` it resolves immediately, data is sent
   * along with the request, and a refusal destroys the stream with the same error. The stream can be half-closed with
   * `end`; attach an `error` listener.
   */
  open(target: Target, options?: { eager?: boolean; visit?: PortVisit }): Promise<Duplex>;
  /** The round trip to the agent in milliseconds. */
  ping(): Promise<number>;
  /** The same, with the time of each leg of the path. */
  roundTrip(): Promise<RoundTrip>;
  /** What is known of other paths; null if the session does not look for them. */
  outlook(): PathOutlook | null;
  /** Ends the session immediately. Open streams close without an error. */
  close(): void;
  /** Resolves when the agent has accepted the ticket, rejects if it refuses. `open` need not wait for it. */
  readonly ready: Promise<SessionInfo>;
  /** Resolves when the session has ended; never rejects. */
  readonly closed: Promise<SessionEnd>;
  /** The active path, or the last one while there is none. */
  readonly path: Path;
  /** How often data was written to its streams. */
  readonly writes: number;
  /** Bytes of the session in both directions, including its own control messages. */
  readonly bytes: number;
  /** Those of them that arrived. */
  readonly received: number;
  /** The last 200 path changes with their reasons and measurements, oldest first. */
  readonly history: readonly PathChange[];
}

/** Errors after which another satellite is worth a try; all others are final. */
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

/** How long to measure satellites before dialling one. */
const rankTimeoutMs = 1_000;

/**
 * Opens a session with a workspace's agent: dials its satellites in turn, then connects TLS 1.3 with the agent's key
 * pinned. The ticket is sent along with the first streams, so it costs no round trip. Rejects with the TunnelError of
 * the last satellite tried.
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

/** Opens a session over an open path. `measured` goes into the history as the reason for choosing it. */
export async function openSessionOver(
  path: Path,
  options: OverOptions,
  measured: PathMeasure[] = [],
): Promise<Session> {
  const pipe = makePipe({ path, clock: options.clock });
  try {
    const socket = await connectTls(pipe, options);
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

/** If `requireDirect` is returned, it must resolve before the session carries streams. */
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

  const lifetime = new Lifetime(pipe, socket, h2);
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
    text: measured.length > 1 ? 'lowest round trip to the agent' : 'the first that answered',
    measured,
  });
  const tickets = makeTicketHolder(
    { ...options, satellites: options.satellites ?? [] },
    renewTicket ?? (() => Promise.reject(new TunnelError('ticket-expired'))),
  );
  const findUdpPath = makeUdpFinder({ ...options.udp, ...options, h2, pipe, tickets });
  const steering = renewTicket
    ? surviveLostPaths({ pipe, socket, h2, lifetime, ready, history, tickets, findUdpPath }, options)
    : undefined;
  /** The agent's last figure for a satellite. */
  const reportedMs = (url: string) =>
    steering?.outlook().measured.find(({ via }) => via === url)?.agentMs ??
    tickets.satellites.find((each) => each.url === url)?.agentRttMs ??
    null;
  // A refusal ends the session, and reaches the callers waiting for `ready` or a stream.
  ready.catch((error) => lifetime.finish(asTunnelError(error, 'session-failed')));

  let writes = 0;
  const session: Session = {
    open: (target, request = {}) => openStream(h2, lifetime, target, request, () => void writes++),
    ping: () => pingAgent(h2, lifetime),
    roundTrip: () => measureRoundTrip({ h2, pipe, lifetime, reportedMs }),
    outlook: () => steering?.outlook() ?? null,
    close: () => lifetime.finish(null),
    ready,
    closed: lifetime.closed,
    get path() {
      return pipe.path;
    },
    get writes() {
      return writes;
    },
    get bytes() {
      return pipe.sent + pipe.received;
    },
    get received() {
      return pipe.received;
    },
    history: history.all,
  };
  udpFinders.set(session, findUdpPath);
  const requiresDirect = steering && !options.steer?.paths.includes('relay');
  return { session, requireDirect: requiresDirect ? steering?.requireDirect : undefined };
}

/** Reconnects the session when its path is lost. Returns the steering, if the session moves to better paths too. */
function surviveLostPaths(
  parts: {
    pipe: Pipe;
    socket: TLSSocket;
    h2: ClientHttp2Session;
    lifetime: Lifetime;
    ready: Promise<SessionInfo>;
    history: History;
    tickets: TicketHolder;
    findUdpPath: FindUdpPath;
  },
  options: OverOptions,
): Steering | undefined {
  const { pipe, h2, lifetime, history, tickets, findUdpPath } = parts;
  const { steer } = options;
  let isAccepted = false;
  parts.ready.then(
    () => {
      isAccepted = true;
    },
    () => {},
  );
  const secret = resumeSecret(parts.socket);
  const routes = makeRoutes({ ...options, secret, tickets });
  const steering =
    steer &&
    steerPaths({
      ...options,
      pipe,
      routes,
      secret,
      findUdpPath,
      tickets,
      history,
      reestablishUdp: async (signal) =>
        reestablishUdp(await openHelper(options, tickets, signal), secret, signal),
      steer,
    });
  if (steering) readOffers(h2, steering.offer);
  const routeProvider = steering ?? makeFixedRoutes({ pipe, routes, tickets, history });
  reconnectPipe(pipe, {
    ...options,
    tickets,
    routeProvider,
    onEnd: lifetime.finish,
    isAccepted: () => isAccepted,
  });
  return steering;
}

/** Finds UDP paths over a session, for reestablishUdp. */
const udpFinders = new WeakMap<Session, FindUdpPath>();

async function openHelper(options: OverOptions, tickets: TicketHolder, signal: AbortSignal) {
  const { steer: _steer, renewTicket: _renew, onChange: _onChange, ...rest } = options;
  const { ticket, satellites } = tickets;
  const session = await openSession({ ...rest, ticket, satellites, signal });
  return { findUdpPath: udpFinders.get(session)!, close: () => session.close() };
}

/** Without steering: the ticket's satellites in order. */
function makeFixedRoutes(options: {
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

/** Reads the agent's offers while the session lasts; null if the agent's release makes none. */
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
