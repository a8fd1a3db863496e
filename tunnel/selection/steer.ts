import { setTimeout as delay } from 'node:timers/promises';
import type { TicketHolder } from '../auth/ticket-holder.ts';
import { type Clock, systemClock } from '../clock.ts';
import { asTunnelError, TunnelError } from '../errors.ts';
import { ownAddresses } from '../paths/direct-tcp.ts';
import type { PathKind } from '../pipe/path.ts';
import type { Pipe } from '../pipe/pipe.ts';
import type { ResumeHandshake, ResumeSecret } from '../pipe/resume.ts';
import { makeChooser } from './choose.ts';
import { type History, lostChange, resumedChange } from './history.ts';
import { makeProber, type Prober, type RttCache } from './measure.ts';
import type { Offer } from './offers.ts';
import { type Route, type RouteProvider, switchPipe } from './reconnect.ts';
import { directId, idOf, type Routes, relayId, udpId } from './routes.ts';
import { makeSurvey } from './survey.ts';
import { type FindUdpPath, makeUdpCandidate } from './udp-candidate.ts';

export interface SteerOptions {
  /**
   * The kinds of path that may be used, as the ticket and the user allow. Without `relay` a session begins through
   * a satellite all the same, but carries nothing before it has left it.
   */
  paths: readonly PathKind[];
  /** Remembers round trips to satellites beyond this session, for the next one to begin at the nearest. */
  book?: RttCache;
  times?: Partial<SteerTimes>;
  prober?: Prober;
}

export interface SteerTimes {
  /** From the opening to the first measurements: a session of one short command is over by then. */
  firstMs: number;
  /** Between rounds while a better path proves itself. */
  quickMs: number;
  /** Between rounds at work; and while nothing is sent, or until something is. */
  slowMs: number;
  idleMs: number;
  /** The longest wait for a satellite's answer. */
  probeMs: number;
  /** The longest wait for what the agent offers, where a session must not go on without. */
  offerMs: number;
}

const defaultTimes: SteerTimes = {
  firstMs: 300,
  quickMs: 500,
  slowMs: 30_000,
  idleMs: 1_800_000,
  probeMs: 2_000,
  offerMs: 5_000,
};

/** So many quick rounds follow whatever is new: the chooser's three, and one for chance. */
const quickRounds = 4;
/** All satellites are measured in each of so many rounds, the nearest in the others. */
const fullEvery = 10;
/** A reserve that was lost is replaced after this. */
const reserveRetryMs = 10_000;

/** For so long a path that was lost is looked for: by then it has been tried a few times (choose.ts). */
const lookMs = 300_000;
/** One that does not answer by then is as dead as the path that broke. */
const reserveAnswerMs = 3_000;

/** Of the satellite, which others will do without. */
const satellitesOwn = new Set(['satellite-restarted', 'satellite-draining', 'satellite-overloaded']);

export interface Steering extends RouteProvider {
  /** The agent has told what it offers; null when it offers nothing at all. */
  offer(offer: Offer | null): void;
  /** Where `relay` may not be used: leaves it. Rejects with `path-unavailable` or `path-forbidden`, and says why. */
  requireDirect(): Promise<void>;
}

/**
 * Keeps a client's session on the best path: measures the satellites, tries the addresses that the agent offers,
 * moves when choose.ts says so, and keeps a relay in reserve while the path is a direct one.
 */
export function steerPaths(options: {
  pipe: Pipe;
  routes: Routes;
  secret: ResumeSecret;
  /** Finds a path by UDP. */
  findUdpPath: FindUdpPath;
  /** The same where there is no path left to arrange it over, and none but UDP is allowed. */
  reestablishUdp: (signal: AbortSignal) => Promise<ResumeHandshake>;
  tickets: TicketHolder;
  history: History;
  steer: SteerOptions;
  clock?: Clock;
}): Steering {
  const { pipe, routes, tickets, history, steer, clock = systemClock } = options;
  const times = { ...defaultTimes, ...steer.times };
  const chooser = makeChooser();
  const over = new AbortController();
  const prober = steer.prober ?? makeProber();
  let toldOffer = () => {};
  const firstOffer = new Promise<void>((resolve) => {
    toldOffer = resolve;
  });
  let network = networkNow();
  let reserve: { route: Route; contact: ResumeHandshake } | undefined;
  let reserveAfter = 0;
  /** Calls off a move when the path breaks meanwhile. */
  let busy = new AbortController();
  let quick = quickRounds;
  /** A path that was lost may come back: until then it is looked for, whether anything is sent or not. */
  let missingUntil = Number.NEGATIVE_INFINITY;
  let wake = new AbortController();
  const unavailable = new Map<PathKind, string>();
  let hasLeftRelay = false;
  let started = false;

  pipe.once('close', () => {
    over.abort();
    busy.abort();
    wake.abort();
    reserve?.contact.drop();
    if (!steer.prober) prober.close();
  });
  const activeId = () => idOf(pipe.path);
  chooser.offer([{ id: activeId(), kind: pipe.path.kind }]);
  chooser.use(activeId(), clock.now(), 'need');

  const prospect = makeUdpCandidate({ ...options, signal: over.signal });
  const survey = makeSurvey({
    ...options,
    chooser,
    prober,
    prospect,
    onUdp: lookAgain,
    probeMs: times.probeMs,
    clock,
    signal: over.signal,
  });
  const { isAllowed: may, addresses } = survey;

  /** So that it is heard of at once, and counts. */
  function lookAgain(): void {
    quick = quickRounds;
    if (started) wake.abort();
  }

  function noteUnavailable(): void {
    if (pipe.path.kind !== 'relay' || over.signal.aborted) return;
    note('direct-tcp', addresses().join(', '), survey.whyNoneDirect());
    note('direct-udp', 'ICE', survey.whyNoUdp());
  }

  function note(kind: PathKind, via: string, text: string): void {
    if (text !== '' && text !== unavailable.get(kind))
      history.add({ what: 'unavailable', kind, via, reason: 'path-unreachable', text, measured: [] });
    unavailable.set(kind, text);
  }

  function routeOf(id: string, fresh = false): Route | undefined {
    if (id === udpId) return prospect.route();
    if (!fresh && reserve?.route.id === id) return fromReserve(reserve.route);
    const place = tickets.satellites.find(({ url }) => relayId(url) === id);
    if (place) return routes.relay(place.url);
    const address = addresses().find((each) => directId(each) === id);
    return address === undefined ? undefined : routes.direct(address);
  }

  function fromReserve(route: Route): Route {
    return { ...route, contact: async (signal) => takeReserve() ?? route.contact(signal) };
  }

  function takeReserve(): ResumeHandshake | undefined {
    const contact = reserve?.contact;
    reserve = undefined;
    return contact;
  }

  /** Makes contact by a route; with a fresh ticket where the old one does not do any more. */
  async function contact(route: Route, signal: AbortSignal): Promise<ResumeHandshake> {
    try {
      return await route.contact(signal);
    } catch (error) {
      if (!(error instanceof TunnelError) || error.code !== 'ticket-expired' || signal.aborted) throw error;
      await tickets.renew();
      return route.contact(signal);
    }
  }

  /** Null once the session is there; else why it is not. */
  async function moveTo(
    id: string,
    reason: string,
    text: (from: string) => string,
  ): Promise<TunnelError | null> {
    const route = routeOf(id);
    if (!route || pipe.waiting) return new TunnelError('session-aborted');
    const from = `${pipe.path.kind} ${pipe.path.via}`;
    try {
      const refusal = await switchPipe(pipe, await contact(route, busy.signal));
      if (refusal) throw refusal;
    } catch (thrown) {
      const error = asTunnelError(thrown, 'session-failed');
      chooser.failed(id, clock.now());
      return error;
    }
    chooser.use(id, clock.now(), 'choice');
    hasLeftRelay ||= route.kind !== 'relay';
    history.add({
      what: 'moved',
      kind: route.kind,
      via: route.via,
      reason,
      text: text(from),
      measured: survey.all(),
    });
    return null;
  }

  /** True when the session has moved to one of the direct paths that were measured, and stays. */
  async function moveAsWanted(wanted: string): Promise<boolean> {
    const order = survey.all().filter(({ kind, rttMs }) => kind !== 'relay' && rttMs !== null);
    for (const { kind, via } of order) {
      const text = (from: string) => `${wanted} was asked for, instead of ${from}`;
      if (await moveTo(idOf({ kind, via }), 'wanted', text)) continue;
      run().catch(unlikely);
      return true;
    }
    return false;
  }

  async function keepReserve(): Promise<void> {
    const wanted = pipe.path.kind !== 'relay' && may('relay');
    if (!wanted) return takeReserve()?.drop();
    if (reserve || clock.now() < reserveAfter) return;
    const best = chooser.ranking(clock.now()).find((id) => id.startsWith('relay '));
    const place = tickets.satellites.find(({ url }) => best === undefined || relayId(url) === best);
    if (!place) return;
    reserveAfter = clock.now() + reserveRetryMs;
    let made: ResumeHandshake | undefined;
    const route = routes.relay(place.url, {
      timeoutMs: reserveAnswerMs,
      closed() {
        if (reserve?.contact === made) reserve = undefined;
      },
      come() {
        if (!pipe.waiting) pipe.dropPath(new TunnelError('path-lost', 'the agent hears nothing over it'));
      },
    });
    try {
      made = await contact(route, over.signal);
      const answer = await made.ask(pipe.expected);
      if ('refusal' in answer) return;
      made.hold();
      reserve = { route, contact: made };
    } catch {
      // The next round tries again; redialling does without.
    }
  }

  async function round(full: boolean): Promise<boolean> {
    const now = networkNow();
    if (now !== network) {
      network = now;
      survey.forget();
      chooser.forget();
      prospect.drop();
      quick = quickRounds;
    }
    await knowAll();
    survey.offer();
    await Promise.all([survey.relays(full), survey.directs(), survey.udp()]);
    noteUnavailable();
    if (over.signal.aborted || pipe.waiting) return false;
    const decision = chooser.decide(clock.now());
    if (decision.move !== null) {
      const gain = `${decision.gainMs.toFixed(1)} ms`;
      await moveTo(decision.move, decision.why, (from) =>
        decision.why === 'faster'
          ? `${gain} better than ${from}`
          : decision.why === 'direct'
            ? `direct, and no slower than ${from}`
            : `carries more than ${from}, and is hardly slower`,
      );
    }
    if (decision.move === null && decision.why === 'best' && quick <= 1) survey.leaveUdp();
    if (!over.signal.aborted && !pipe.waiting) await keepReserve();
    return decision.move === null && decision.why === 'unproven';
  }

  let askedAt = Number.NEGATIVE_INFINITY;
  /** The agent listens at a satellite that the ticket does not name: there is a newer list. */
  async function knowAll(): Promise<void> {
    const names = new Set(tickets.satellites.flatMap(({ name, url }) => [name, url]));
    const news = survey.offered?.satellites.some(({ name, url }) => !names.has(name) && !names.has(url));
    if (!news || clock.now() - askedAt < times.slowMs * 10) return;
    askedAt = clock.now();
    await tickets.renew().catch(() => {});
  }

  async function run(): Promise<void> {
    await sleep(times.firstMs);
    started = true;
    let count = 0;
    let bytes = -1;
    let at = Number.NEGATIVE_INFINITY;
    while (!over.signal.aborted) {
      const unused = pipe.sent + pipe.received === bytes && clock.now() >= missingUntil;
      const idle = unused && quick <= 0 && networkNow() === network;
      // A session left open measures nothing, or next to it: what it costs is a beat now and then.
      if (idle && clock.now() - at < times.idleMs) {
        await sleep(times.slowMs);
        continue;
      }
      const unproven = pipe.waiting ? false : await round(count++ % fullEvery === 0);
      if (over.signal.aborted) return;
      at = clock.now();
      bytes = pipe.sent + pipe.received;
      const soon = unproven || --quick > 0;
      if (unproven) bytes = -1;
      await sleep(soon ? times.quickMs : times.slowMs);
    }
  }

  async function sleep(ms: number): Promise<void> {
    wake = new AbortController();
    await clock.sleep(ms, AbortSignal.any([over.signal, wake.signal]));
  }

  /** The session goes on where it is. */
  const unlikely = (thrown: unknown) => {
    const { code, message } = asTunnelError(thrown, 'session-failed');
    const { kind, via } = pipe.path;
    if (!over.signal.aborted)
      history.add({ what: 'unavailable', kind, via, reason: code, text: message, measured: [] });
  };
  if (steer.paths.includes('relay')) run().catch(unlikely);

  return {
    offer(offer) {
      const news = JSON.stringify(offer) !== JSON.stringify(survey.offered);
      survey.offered = offer;
      toldOffer();
      if (!news || offer === null) return;
      survey.offer();
      lookAgain();
    },
    async requireDirect() {
      const wanted = steer.paths.join(' or ');
      await Promise.race([
        firstOffer,
        delay(times.offerMs, null, { ref: true, signal: over.signal }).catch(() => {}),
      ]);
      if (pipe.errored) throw pipe.errored;
      const { offered } = survey;
      if (!offered) throw new TunnelError('path-unavailable', 'the agent offers no path but the relay');
      if (!steer.paths.some((kind) => offered.paths.includes(kind)))
        throw new TunnelError('path-forbidden', `${wanted}; allowed are: ${offered.paths.join(', ')}`);
      survey.offer();
      if (addresses().length === 0 && !may('direct-udp'))
        throw new TunnelError(
          'path-unavailable',
          `${wanted}: the agent has no address that others could reach`,
        );
      await Promise.all(addresses().map(survey.direct));
      if (await moveAsWanted(wanted)) return;
      if (may('direct-udp') && !over.signal.aborted) {
        await survey.findUdp();
        await survey.udp();
        if (await moveAsWanted(wanted)) return;
      }
      if (pipe.errored) throw pipe.errored;
      throw new TunnelError(
        'path-unavailable',
        [survey.whyNoneDirect(), survey.whyNoUdp()].filter(Boolean).join('; ') ||
          'the session could not be moved there',
      );
    },
    lost(reason) {
      busy.abort();
      busy = new AbortController();
      const id = activeId();
      // What is being found by the same way would fail as well, and count twice.
      if (id === udpId) prospect.drop();
      if (pipe.path.kind !== 'relay' || satellitesOwn.has(reason.code)) chooser.failed(id, clock.now());
      history.add(lostChange(pipe.path, reason));
      missingUntil = clock.now() + lookMs;
    },
    routes() {
      // Where the network is another, nothing that was measured is of use; the order of the ticket is as good as any.
      if (networkNow() !== network) {
        chooser.forget();
        prospect.drop();
        takeReserve()?.drop();
      }
      survey.offer();
      const relaysToo = may('relay') || !hasLeftRelay;
      const known = new Set([
        ...chooser.ranking(clock.now()),
        ...tickets.satellites.map(({ url }) => relayId(url)),
        ...addresses().map(directId),
      ]);
      const held = reserve && relaysToo ? [fromReserve(reserve.route)] : [];
      // After the one in reserve a fresh way to the same satellite, too; direct ones that have just failed last.
      const fresh = [...known].filter((id) => relaysToo || !id.startsWith('relay '));
      const ways = [...held, ...fresh.flatMap((id) => routeOf(id, true) ?? [])];
      if (!relaysToo && may('direct-udp'))
        ways.push({ id: udpId, kind: 'direct-udp', via: 'ICE', contact: options.reestablishUdp });
      return ways;
    },
    resumed(route, afterMs) {
      chooser.use(route.id, clock.now(), 'need');
      hasLeftRelay ||= route.kind !== 'relay';
      history.add(resumedChange(pipe.path, afterMs, survey.all()));
      quick = quickRounds;
      wake.abort();
    },
  };
}

/** Another set of addresses is another network. */
function networkNow(): string {
  return ownAddresses().sort().join(' ');
}
