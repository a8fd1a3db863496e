import type { TicketHolder } from '../auth/ticket-holder.ts';
import { type Clock, systemClock } from '../clock.ts';
import { asTunnelError, TunnelError } from '../errors.ts';
import { outgoingAddresses } from '../network/ways-out.ts';
import type { PathKind } from '../pipe/path.ts';
import type { Pipe } from '../pipe/pipe.ts';
import type { ResumeHandshake, ResumeSecret } from '../pipe/resume.ts';
import { type Decision, makeChooser } from './choose.ts';
import { type History, lostChange, resumedChange } from './history.ts';
import { makeProber, type Prober, type RttCache } from './measure.ts';
import type { PathOutlook } from './obstacles.ts';
import type { Offer } from './offers.ts';
import { isSamePath, type PathId, pathIdOf, udpPath } from './path-id.ts';
import { type Route, type RouteProvider, switchPipe } from './reconnect.ts';
import { makeDirectRequirement } from './require-direct.ts';
import { makeReserve } from './reserve.ts';
import type { Routes } from './routes.ts';
import {
  type Attempt,
  defaultTimes,
  initialState,
  reconnectOrder,
  type SteerEffect,
  type SteerEvent,
  type SteerTimes,
  transition,
} from './steer-state.ts';
import { makeSurvey } from './survey.ts';
import { type FindUdpPath, makeUdpCandidate } from './udp-candidate.ts';

export interface SteerOptions {
  /**
   * The kinds of path that the user and the ticket allow. Without `relay` the session still opens through a satellite,
   * but carries no streams until it has left it.
   */
  paths: readonly PathKind[];
  /** Remembers round trips to satellites beyond this session, so that the next one starts at the nearest. */
  book?: RttCache;
  times?: Partial<SteerTimes>;
  prober?: Prober;
  /** Identifies the network that this machine is in. Tests give it: containers of others come and go beside them. */
  networkNow?: () => string;
}

export interface Steering extends RouteProvider {
  /** The agent's current offer; null if it makes none. */
  offer(offer: Offer | null): void;
  /** What is known of other paths. */
  outlook(): PathOutlook;
  /** Leaves the relay if it may not be used. Rejects with `path-unavailable` or `path-forbidden`. */
  requireDirect(): Promise<void>;
}

/**
 * Keeps a client's session on the best path: measures satellites and the agent's addresses, moves when choose.ts
 * decides so, and keeps a relay in reserve while the path is direct. steer-state.ts decides what happens when; this
 * file performs it.
 */
export function steerPaths(options: {
  pipe: Pipe;
  routes: Routes;
  secret: ResumeSecret;
  findUdpPath: FindUdpPath;
  /** Finds a UDP path without any path to signal over, for sessions that may only use UDP. */
  reestablishUdp: (signal: AbortSignal) => Promise<ResumeHandshake>;
  tickets: TicketHolder;
  history: History;
  steer: SteerOptions;
  clock?: Clock;
}): Steering {
  const { pipe, routes, tickets, history, steer, clock = systemClock } = options;
  const { networkNow = ownNetwork } = steer;
  const config = { times: { ...defaultTimes, ...steer.times }, paths: steer.paths };
  const ended = new AbortController();
  const prober = steer.prober ?? makeProber();
  const chooser = makeChooser();
  let state = initialState(pathIdOf(pipe.path), networkNow());
  /** Cancels the current sleep, and a move in progress. */
  let sleeping = new AbortController();
  let moving = new AbortController();

  chooser.offer([state.active]);
  chooser.use(state.active, clock.now(), 'need');
  const candidate = makeUdpCandidate({ ...options, signal: ended.signal });
  const survey = makeSurvey({
    ...options,
    chooser,
    prober,
    candidate,
    onUdpSearched: () => dispatch({ type: 'udp-searched' }),
    probeMs: config.times.probeMs,
    clock,
    signal: ended.signal,
  });
  const reserve = makeReserve({
    ...options,
    ranking: () => chooser.ranking(clock.now()),
    connect,
    onChange: (isOpen) => dispatch({ type: 'reserve-changed', isOpen }),
  });
  const recordUnavailable = makeUnavailableRecorder(history);

  function dispatch(event: SteerEvent): void {
    const now = { at: clock.now(), bytes: pipe.sent + pipe.received, network: networkNow() };
    const next = transition(state, event, now, config);
    state = next.state;
    for (const effect of next.effects) perform(effect);
  }

  const performers: { [Name in SteerEffect['do']]: (effect: Extract<SteerEffect, { do: Name }>) => void } = {
    sleep: ({ ms }) => void sleep(ms),
    wake: () => sleeping.abort(),
    'reset-measurements'() {
      survey.reset();
      chooser.forget();
      candidate.drop();
    },
    'reset-choices': () => chooser.forget(),
    measure: (effect) => void measure(effect),
    'publish-paths': () => survey.publish(),
    'release-udp': () => survey.releaseUdp(),
    'drop-udp': () => candidate.drop(),
    move: ({ decision }) => void move(decision),
    'cancel-move'() {
      moving.abort();
      moving = new AbortController();
    },
    'open-reserve': () =>
      void reserve.open(ended.signal).finally(() => dispatch({ type: 'reserve-attempted' })),
    'drop-reserve': () => reserve.drop(),
    'hold-off': ({ path }) => chooser.failed(path, clock.now()),
  };
  const perform = (effect: SteerEffect) => (performers[effect.do] as (effect: SteerEffect) => void)(effect);

  async function sleep(ms: number): Promise<void> {
    sleeping = new AbortController();
    await clock.sleep(ms, AbortSignal.any([ended.signal, sleeping.signal]));
    dispatch({ type: 'woke', hasUnknownSatellite: survey.hasUnknownSatellite() });
  }

  async function measure({ allSatellites, renewTicket }: Extract<SteerEffect, { do: 'measure' }>) {
    let decision: Decision | null = null;
    try {
      if (renewTicket) await tickets.renew().catch(() => {});
      survey.publish();
      await survey.measure(allSatellites);
      if (!ended.signal.aborted && pipe.path.kind === 'relay') {
        recordUnavailable('direct-tcp', survey.addresses().join(', '), survey.tcpFailure());
        recordUnavailable('direct-udp', 'ICE', survey.udpFailure());
      }
      if (!ended.signal.aborted && !pipe.waiting) decision = chooser.decide(clock.now());
    } catch (thrown) {
      // Not expected. The session stays where it is, and the next round tries again.
      const { kind, via } = pipe.path;
      const { code, message } = asTunnelError(thrown, 'session-failed');
      if (!ended.signal.aborted)
        history.add({ what: 'unavailable', kind, via, reason: code, text: message, measured: [] });
    }
    dispatch({ type: 'measured', decision });
  }

  async function move({ move: id, why, gainMs }: Extract<Decision, { move: PathId }>): Promise<void> {
    const texts = {
      faster: (from: string) => `${gainMs.toFixed(1)} ms better than ${from}`,
      direct: (from: string) => `direct, and no slower than ${from}`,
      tcp: (from: string) => `carries more than ${from}, and is hardly slower`,
    };
    if (!(await moveTo(id, why, texts[why]))) dispatch({ type: 'move-failed' });
  }

  /** Moves the session; false if that failed. */
  async function moveTo(id: PathId, reason: string, text: (from: string) => string): Promise<boolean> {
    const route = routeTo(id);
    if (!route || pipe.waiting) return false;
    const from = `${pipe.path.kind} ${pipe.path.via}`;
    try {
      const refusal = await switchPipe(pipe, await connect(route, moving.signal));
      if (refusal) throw refusal;
    } catch {
      chooser.failed(id, clock.now());
      return false;
    }
    chooser.use(id, clock.now(), 'choice');
    const { kind, via } = route;
    history.add({ what: 'moved', kind, via, reason, text: text(from), measured: survey.measurements() });
    dispatch({ type: 'moved', path: id });
    return true;
  }

  function routeTo(id: PathId): Route | undefined {
    if (id.kind === 'direct-udp') return candidate.route();
    const held = reserve.route();
    return held && isSamePath(held.id, id) ? held : dialRoute(id);
  }

  function dialRoute({ kind, via }: PathId): Route | undefined {
    if (kind === 'direct-udp') return candidate.route();
    if (kind === 'relay')
      return tickets.satellites.some(({ url }) => url === via) ? routes.relay(via) : undefined;
    return survey.addresses().includes(via) ? routes.direct(via) : undefined;
  }

  /** Connects by a route, with a fresh ticket if the current one has expired. */
  async function connect(route: Route, signal: AbortSignal): Promise<ResumeHandshake> {
    try {
      return await route.connect(signal);
    } catch (error) {
      if (!(error instanceof TunnelError) || error.code !== 'ticket-expired' || signal.aborted) throw error;
      await tickets.renew();
      return route.connect(signal);
    }
  }

  function attemptRoute({ path, by }: Attempt): Route | undefined {
    if (by === 'reserve') return reserve.route();
    if (by === 'dial') return dialRoute(path);
    return { id: udpPath, ...udpPath, connect: options.reestablishUdp };
  }

  const directRequirement = makeDirectRequirement({
    pipe,
    survey,
    paths: steer.paths,
    offerMs: config.times.offerMs,
    signal: ended.signal,
    moveTo,
  });

  pipe.once('close', () => {
    ended.abort();
    dispatch({ type: 'closed' });
    if (!steer.prober) prober.close();
  });
  if (steer.paths.includes('relay')) dispatch({ type: 'start' });

  return {
    offer(offer) {
      const isNew = JSON.stringify(offer) !== JSON.stringify(survey.offered);
      survey.offered = offer;
      directRequirement.onOffer();
      if (isNew && offer !== null) dispatch({ type: 'offer-changed' });
    },
    outlook: () => ({
      offered: survey.offered === undefined ? undefined : (survey.offered?.paths ?? null),
      addresses: survey.offered?.addresses ?? [],
      isSearchingUdp: candidate.isSearching,
      measured: survey.measurements(),
    }),
    async requireDirect() {
      await directRequirement.move();
      dispatch({ type: 'start' });
    },
    lost(reason) {
      history.add(lostChange(pipe.path, reason));
      dispatch({ type: 'lost', code: reason.code });
    },
    routes() {
      dispatch({ type: 'reconnecting' });
      survey.publish();
      const attempts = reconnectOrder(state, config, {
        reserve: reserve.route()?.id,
        ranking: chooser.ranking(clock.now()),
        satellites: tickets.satellites,
        addresses: survey.addresses(),
        isUdpAllowed: survey.isAllowed('direct-udp'),
      });
      return attempts.flatMap((attempt) => attemptRoute(attempt) ?? []);
    },
    resumed(route, afterMs) {
      chooser.use(route.id, clock.now(), 'need');
      history.add(resumedChange(pipe.path, afterMs, survey.measurements()));
      dispatch({ type: 'resumed', path: route.id });
    },
  };
}

/** Records why a kind of path is unavailable, once for each reason. */
function makeUnavailableRecorder(history: History) {
  const recorded = new Map<PathKind, string>();
  return (kind: PathKind, via: string, text: string): void => {
    if (text !== '' && text !== recorded.get(kind))
      history.add({ what: 'unavailable', kind, via, reason: 'path-unreachable', text, measured: [] });
    recorded.set(kind, text);
  };
}

/** A different set of addresses is a different network. */
function ownNetwork(): string {
  return outgoingAddresses().sort().join(' ');
}
