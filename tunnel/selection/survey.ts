import type { TicketHolder } from '../auth/ticket-holder.ts';
import type { Clock } from '../clock.ts';
import { asTunnelError } from '../errors.ts';
import type { PathKind } from '../pipe/path.ts';
import type { Pipe } from '../pipe/pipe.ts';
import type { Chooser } from './choose.ts';
import type { PathMeasure } from './history.ts';
import { type Prober, type RttCache, rank, type TicketSatellite } from './measure.ts';
import type { Offer } from './offers.ts';
import { directId, idOf, type Routes, relayId, udpId } from './routes.ts';
import type { UdpCandidate } from './udp-candidate.ts';

/** Satellites measured in an ordinary round, besides the one in use. */
const nearby = 4;
/** Asks of a direct path in a round; the least round trip counts. */
const asks = 3;
/** A path by UDP cannot be better than a direct one of less than this by anything that counts. */
const enoughMs = 2;

/** The ways to the agent that a session may take, and how long each is. */
export interface Survey {
  /** What the agent offers; null when it offers nothing at all, undefined before it has said so. */
  offered: Offer | null | undefined;
  /** True for a kind that client and agent allow. */
  isAllowed(kind: PathKind): boolean;
  /** The agent's own, as HOST:PORT, if they may be used. */
  addresses(): readonly string[];
  /** Tells the chooser what there is. */
  offer(): void;
  /** Measures the satellites, all or the nearest. */
  relays(all: boolean): Promise<void>;
  /** Measures the agent's addresses, but for those that have failed of late. */
  directs(): Promise<void>;
  direct(address: string): Promise<void>;
  /** Measures the path by UDP if there is one, or has one looked for, and tells `onUdp` when it is there. */
  udp(): Promise<void>;
  /** Has a path by UDP looked for, now. Never rejects: `all` tells. */
  findUdp(): Promise<void>;
  /** The path by UDP was measured, and is of no use for now. */
  leaveUdp(): void;
  /** What is known, the shortest way first. */
  all(): PathMeasure[];
  /** Why no path by UDP is to be had; empty where there is one, or it is not known. */
  whyNoUdp(): string;
  /** Why none of the addresses serves; empty where one does, or there is none to try. */
  whyNoneDirect(): string;
  forget(): void;
}

export function makeSurvey(options: {
  pipe: Pipe;
  routes: Routes;
  tickets: TicketHolder;
  steer: { paths: readonly PathKind[]; book?: RttCache };
  chooser: Chooser;
  prober: Prober;
  prospect: UdpCandidate;
  /** There is a path by UDP to be measured. */
  onUdp: () => void;
  /** The longest wait for a satellite's answer. */
  probeMs: number;
  clock: Clock;
  signal: AbortSignal;
}): Survey {
  const { pipe, routes, tickets, steer, chooser, prober, prospect, clock, signal } = options;
  let found = new Map<string, PathMeasure>();
  /** Not on this machine. */
  let noUdp = '';

  function agentMsOf({ name, url, agentRttMs }: TicketSatellite): number | null {
    const satellites = survey.offered?.satellites ?? [];
    // The server's own may have one address for agents and another for clients.
    const same = satellites.find((each) => each.url === url) ?? satellites.find((each) => each.name === name);
    return same?.rttMs ?? agentRttMs ?? null;
  }

  const survey: Survey = {
    offered: undefined,
    isAllowed: (kind) =>
      steer.paths.includes(kind) &&
      (kind === 'relay' || (survey.offered?.paths.includes(kind) ?? false)) &&
      !(kind === 'direct-udp' && noUdp !== ''),
    addresses: () => (survey.isAllowed('direct-tcp') ? (survey.offered?.addresses ?? []) : []),
    offer() {
      const relays = survey.isAllowed('relay') ? tickets.satellites : [];
      const all = [
        ...relays.map(({ url }) => ({ id: relayId(url), kind: 'relay' as const })),
        ...survey.addresses().map((each) => ({ id: directId(each), kind: 'direct-tcp' as const })),
        ...(survey.isAllowed('direct-udp') ? [{ id: udpId, kind: 'direct-udp' as const }] : []),
      ];
      chooser.offer(all);
      const ids = new Set(all.map(({ id }) => id));
      for (const id of found.keys()) if (!ids.has(id) && !(id === udpId && noUdp !== '')) found.delete(id);
    },
    async relays(all) {
      if (!survey.isAllowed('relay')) return;
      const order = chooser.ranking(clock.now());
      const active = idOf(pipe.path);
      const nearest = tickets.satellites.filter(({ url }) => {
        const at = order.indexOf(relayId(url));
        return relayId(url) === active || (at >= 0 && (all || at < nearby));
      });
      const measured = await Promise.all(
        nearest.map(async (satellite) => {
          const agentMs = agentMsOf(satellite);
          try {
            const clientMs = await prober.rtt(satellite.url, { timeoutMs: options.probeMs, signal });
            steer.book?.put(satellite.url, clientMs);
            return { satellite, agentMs, clientMs };
          } catch (error) {
            return { satellite, agentMs, clientMs: null, error: (error as Error).message };
          }
        }),
      );
      for (const { satellite, ...one } of rank(measured)) {
        chooser.sample(relayId(satellite.url), one.rttMs, clock.now());
        found.set(relayId(satellite.url), { kind: 'relay', via: satellite.url, ...one });
      }
    },
    async directs() {
      const tried = new Set(chooser.ranking(clock.now()));
      const some = survey.addresses().filter((each) => tried.has(directId(each)));
      await Promise.all(some.map(survey.direct));
    },
    /** Over a connection of its own: the round trip over the one in use would count what waits in it, too. */
    async direct(address) {
      const id = directId(address);
      try {
        const contact = await routes.direct(address).contact(signal);
        let least = Number.POSITIVE_INFINITY;
        for (let i = 0; i < asks; i++) {
          const answer = await contact.ask(pipe.expected);
          if ('refusal' in answer) throw answer.refusal;
          least = Math.min(least, answer.rttMs);
        }
        contact.drop();
        found.set(id, { kind: 'direct-tcp', via: address, rttMs: least });
        chooser.sample(id, least, clock.now());
      } catch (thrown) {
        const error = asTunnelError(thrown, 'path-unreachable').message;
        found.set(id, { kind: 'direct-tcp', via: address, rttMs: null, error });
        chooser.sample(id, null, clock.now());
      }
    },
    async udp() {
      if (!survey.isAllowed('direct-udp') || prospect.isSearching) return;
      const { via } = prospect;
      if (via === undefined) {
        const known = survey.addresses().map((each) => chooser.rtt(directId(each)));
        const due = chooser.ranking(clock.now()).includes(udpId);
        // Beside everything else: a round does not wait for it.
        if (due && !known.some((rtt) => rtt !== undefined && rtt < enoughMs)) void survey.findUdp();
        return;
      }
      const rttMs = await prospect.measure();
      if (rttMs === undefined) return;
      chooser.sample(udpId, rttMs, clock.now());
      found.set(udpId, { kind: 'direct-udp', via, rttMs, ...(rttMs === null && { error: 'it broke' }) });
      // The one in use is measured by another like it.
      if (pipe.path.kind === 'direct-udp') prospect.drop();
    },
    async findUdp() {
      try {
        await prospect.searchPath();
        if (!signal.aborted) options.onUdp();
      } catch (thrown) {
        const error = asTunnelError(thrown, 'path-unreachable');
        if (signal.aborted || error.code === 'session-aborted') return;
        found.set(udpId, { kind: 'direct-udp', via: 'ICE', rttMs: null, error: error.message });
        chooser.sample(udpId, null, clock.now());
        if (error.code === 'path-unsupported') noUdp = error.message;
        options.onUdp();
      }
    },
    leaveUdp() {
      if (prospect.via === undefined) return;
      prospect.drop();
      // What was measured would be taken for news later.
      chooser.sample(udpId, null, clock.now());
    },
    whyNoUdp() {
      const { rttMs, error = '' } = found.get(udpId) ?? {};
      return rttMs === null ? error : '';
    },
    all: () =>
      [...found.values()].sort(
        (one, other) => (one.rttMs ?? Number.MAX_VALUE) - (other.rttMs ?? Number.MAX_VALUE),
      ),
    whyNoneDirect() {
      const known = survey.addresses().flatMap((each) => found.get(directId(each)) ?? []);
      if (known.some(({ rttMs }) => rttMs !== null)) return '';
      return known
        .map(({ via, error = '' }) => (error.includes(via) ? error : `${via}: ${error}`))
        .join('; ');
    },
    forget() {
      found = new Map();
    },
  };
  return survey;
}
