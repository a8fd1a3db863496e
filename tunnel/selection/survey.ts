import type { TicketHolder, TicketSatellite } from '../auth/ticket-holder.ts';
import type { Clock } from '../clock.ts';
import { asTunnelError } from '../errors.ts';
import type { PathKind } from '../pipe/path.ts';
import type { Pipe } from '../pipe/pipe.ts';
import type { Chooser } from './choose.ts';
import type { PathMeasure } from './history.ts';
import { type Prober, type RttCache, rank } from './measure.ts';
import type { Offer } from './offers.ts';
import { isSamePath, type PathId, pathIdOf, pathKey, relayPath, tcpPath, udpPath } from './path-id.ts';
import type { Routes } from './routes.ts';
import type { UdpCandidate } from './udp-candidate.ts';

/** Satellites measured in an ordinary round, besides the active one. */
const nearbySatellites = 4;
/** Requests per round over a direct path; the minimum round trip counts. */
const requests = 3;
/** No UDP path is noticeably better than a direct TCP path with a round trip below this. */
const goodEnoughMs = 2;

/** Measures the paths that a session may use, and reports them to the chooser. */
export interface Survey {
  /** The agent's current offer; null if it makes none, undefined until it has answered. */
  offered: Offer | null | undefined;
  /** True if both client and agent allow this kind. */
  isAllowed(kind: PathKind): boolean;
  /** The agent's own addresses (HOST:PORT), if direct TCP is allowed. */
  addresses(): readonly string[];
  /** True if the agent listens at a satellite that the ticket does not name. */
  hasUnknownSatellite(): boolean;
  /** Passes the available paths to the chooser. */
  publish(): void;
  /** Measures everything once: all satellites or only the nearest, the agent's addresses, the UDP candidate. */
  measure(allSatellites: boolean): Promise<void>;
  /** Measures one of the agent's addresses. */
  measureAddress(address: string): Promise<void>;
  /** Measures the UDP candidate if there is one, else starts a search if one is due. */
  measureUdp(): Promise<void>;
  /** Searches for a UDP candidate now. Never rejects; failures appear in the measurements. */
  findUdp(): Promise<void>;
  /** Drops a UDP candidate that was measured and is not worth using. */
  releaseUdp(): void;
  /** All measurements, shortest round trip first. */
  measurements(): PathMeasure[];
  /** Why no path by UDP is available; empty if one is, or if unknown. */
  udpFailure(): string;
  /** Why none of the agent's addresses is reachable; empty if one is, or if there are none. */
  tcpFailure(): string;
  reset(): void;
}

export function makeSurvey(options: {
  pipe: Pick<Pipe, 'path' | 'expected'>;
  routes: Pick<Routes, 'direct'>;
  tickets: Pick<TicketHolder, 'satellites'>;
  steer: { paths: readonly PathKind[]; book?: RttCache };
  chooser: Chooser;
  prober: Prober;
  candidate: UdpCandidate;
  /** Called when a search for a UDP path has ended. */
  onUdpSearched: () => void;
  /** Timeout for a satellite's response. */
  probeMs: number;
  clock: Clock;
  signal: AbortSignal;
}): Survey {
  const { pipe, routes, tickets, steer, chooser, prober, candidate, clock, signal } = options;
  let measured = new Map<string, PathMeasure>();
  /** Set if this machine does not support UDP paths at all. */
  let udpUnsupported = '';

  const record = (id: PathId, measure: PathMeasure) => {
    measured.set(pathKey(id), measure);
    chooser.sample(id, measure.rttMs, clock.now());
  };
  const measureOf = (id: PathId) => measured.get(pathKey(id));

  function agentRtt({ name, url, agentRttMs }: TicketSatellite): number | null {
    const satellites = survey.offered?.satellites ?? [];
    // The embedded satellite may have one URL for agents and another for clients.
    const same = satellites.find((each) => each.url === url) ?? satellites.find((each) => each.name === name);
    return same?.rttMs ?? agentRttMs ?? null;
  }

  async function measureSatellites(all: boolean): Promise<void> {
    if (!survey.isAllowed('relay')) return;
    const ranking = chooser.ranking(clock.now());
    const active = pathIdOf(pipe.path);
    const satellites = tickets.satellites.filter(({ url }) => {
      const position = ranking.findIndex((id) => isSamePath(id, relayPath(url)));
      return isSamePath(relayPath(url), active) || (position >= 0 && (all || position < nearbySatellites));
    });
    const results = await Promise.all(
      satellites.map(async (satellite) => {
        const agentMs = agentRtt(satellite);
        try {
          const clientMs = await prober.rtt(satellite.url, { timeoutMs: options.probeMs, signal });
          steer.book?.put(satellite.url, clientMs);
          return { satellite, agentMs, clientMs };
        } catch (error) {
          return { satellite, agentMs, clientMs: null, error: (error as Error).message };
        }
      }),
    );
    for (const { satellite, ...rest } of rank(results))
      record(relayPath(satellite.url), { kind: 'relay', via: satellite.url, ...rest });
  }

  async function measureAddresses(): Promise<void> {
    const ranking = chooser.ranking(clock.now());
    const due = survey
      .addresses()
      .filter((address) => ranking.some((id) => isSamePath(id, tcpPath(address))));
    await Promise.all(due.map(survey.measureAddress));
  }

  const survey: Survey = {
    offered: undefined,
    isAllowed: (kind) =>
      steer.paths.includes(kind) &&
      (kind === 'relay' || (survey.offered?.paths.includes(kind) ?? false)) &&
      !(kind === 'direct-udp' && udpUnsupported !== ''),
    addresses: () => (survey.isAllowed('direct-tcp') ? (survey.offered?.addresses ?? []) : []),
    hasUnknownSatellite() {
      const known = new Set(tickets.satellites.flatMap(({ name, url }) => [name, url]));
      return (survey.offered?.satellites ?? []).some(({ name, url }) => !known.has(name) && !known.has(url));
    },
    publish() {
      const relays = survey.isAllowed('relay') ? tickets.satellites : [];
      const available = [
        ...relays.map(({ url }) => relayPath(url)),
        ...survey.addresses().map(tcpPath),
        ...(survey.isAllowed('direct-udp') ? [udpPath] : []),
      ];
      chooser.offer(available);
      const keys = new Set(available.map(pathKey));
      if (udpUnsupported !== '') keys.add(pathKey(udpPath));
      for (const key of measured.keys()) if (!keys.has(key)) measured.delete(key);
    },
    async measure(allSatellites) {
      await Promise.all([measureSatellites(allSatellites), measureAddresses(), survey.measureUdp()]);
    },
    /** Uses its own connection: on the active one the result would include what is queued there. */
    async measureAddress(address) {
      const id = tcpPath(address);
      try {
        const handshake = await routes.direct(address).connect(signal);
        let minMs = Number.POSITIVE_INFINITY;
        for (let i = 0; i < requests; i++) {
          const answer = await handshake.request(pipe.expected);
          if ('refusal' in answer) throw answer.refusal;
          minMs = Math.min(minMs, answer.rttMs);
        }
        handshake.drop();
        record(id, { ...id, rttMs: minMs });
      } catch (thrown) {
        record(id, { ...id, rttMs: null, error: asTunnelError(thrown, 'path-unreachable').message });
      }
    },
    async measureUdp() {
      if (!survey.isAllowed('direct-udp') || candidate.isSearching) return;
      const { via } = candidate;
      if (via === undefined) {
        const rtts = survey.addresses().map((address) => chooser.rtt(tcpPath(address)));
        const isDue = chooser.ranking(clock.now()).some((id) => isSamePath(id, udpPath));
        // In the background: a round does not wait for the search.
        if (isDue && !rtts.some((rtt) => rtt !== undefined && rtt < goodEnoughMs)) void survey.findUdp();
        return;
      }
      const rttMs = await candidate.measure();
      if (rttMs === undefined) return;
      record(udpPath, { kind: 'direct-udp', via, rttMs, ...(rttMs === null && { error: 'it broke' }) });
      // An active UDP path is measured through a second one like it.
      if (pipe.path.kind === 'direct-udp') candidate.drop();
    },
    async findUdp() {
      try {
        await candidate.search();
        if (!signal.aborted) options.onUdpSearched();
      } catch (thrown) {
        const error = asTunnelError(thrown, 'path-unreachable');
        if (signal.aborted || error.code === 'session-aborted') return;
        record(udpPath, { ...udpPath, rttMs: null, error: error.message });
        if (error.code === 'path-unsupported') udpUnsupported = error.message;
        options.onUdpSearched();
      }
    },
    releaseUdp() {
      if (candidate.via === undefined) return;
      candidate.drop();
      // Stale samples must not count as news later.
      chooser.sample(udpPath, null, clock.now());
    },
    measurements: () =>
      [...measured.values()].sort(
        (one, other) => (one.rttMs ?? Number.MAX_VALUE) - (other.rttMs ?? Number.MAX_VALUE),
      ),
    udpFailure() {
      const { rttMs, error = '' } = measureOf(udpPath) ?? {};
      return rttMs === null ? error : '';
    },
    tcpFailure() {
      const results = survey.addresses().flatMap((address) => measureOf(tcpPath(address)) ?? []);
      if (results.some(({ rttMs }) => rttMs !== null)) return '';
      return results
        .map(({ via, error = '' }) => (error.includes(via) ? error : `${via}: ${error}`))
        .join('; ');
    },
    reset() {
      measured = new Map();
    },
  };
  return survey;
}
