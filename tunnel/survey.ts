import type { Chooser } from './choose.ts';
import type { Clock } from './clock.ts';
import { asTunnelError } from './errors.ts';
import type { PathMeasure } from './history.ts';
import { type Prober, type RttBook, rank, type SatellitePlace } from './measure.ts';
import type { Offer } from './offers.ts';
import type { PathKind } from './path.ts';
import type { Pipe } from './pipe.ts';
import { directId, type Routes, relayId } from './routes.ts';
import type { TicketHolder } from './tickets.ts';

/** Satellites measured in an ordinary round, besides the one in use. */
const nearby = 4;
/** Asks of a direct path in a round; the least round trip counts. */
const asks = 3;

/** The ways to the agent that a session may take, and how long each is. */
export interface Survey {
  /** What the agent offers; null when it offers nothing at all, undefined before it has said so. */
  offered: Offer | null | undefined;
  /** True for a kind that client and agent allow. */
  may(kind: PathKind): boolean;
  /** The agent's own, as HOST:PORT, if they may be used. */
  addresses(): readonly string[];
  /** Tells the chooser what there is. */
  offer(): void;
  /** Measures the satellites, all or the nearest. */
  relays(all: boolean): Promise<void>;
  /** Measures the agent's addresses, but for those that have failed of late. */
  directs(): Promise<void>;
  direct(address: string): Promise<void>;
  /** What is known, the shortest way first. */
  all(): PathMeasure[];
  /** Why none of the addresses serves; empty where one does, or there is none to try. */
  whyNoneDirect(): string;
  forget(): void;
}

export function makeSurvey(options: {
  pipe: Pipe;
  routes: Routes;
  tickets: TicketHolder;
  steer: { paths: readonly PathKind[]; book?: RttBook };
  chooser: Chooser;
  prober: Prober;
  /** The longest wait for a satellite's answer. */
  probeMs: number;
  clock: Clock;
  signal: AbortSignal;
}): Survey {
  const { pipe, routes, tickets, steer, chooser, prober, clock, signal } = options;
  let found = new Map<string, PathMeasure>();

  function agentMsOf({ name, url, agentRttMs }: SatellitePlace): number | null {
    const satellites = survey.offered?.satellites ?? [];
    // The server's own may have one address for agents and another for clients.
    const same = satellites.find((each) => each.url === url) ?? satellites.find((each) => each.name === name);
    return same?.rttMs ?? agentRttMs ?? null;
  }

  const survey: Survey = {
    offered: undefined,
    may: (kind) =>
      steer.paths.includes(kind) && (kind === 'relay' || (survey.offered?.paths.includes(kind) ?? false)),
    addresses: () => (survey.may('direct-tcp') ? (survey.offered?.addresses ?? []) : []),
    offer() {
      const relays = survey.may('relay') ? tickets.satellites : [];
      const all = [
        ...relays.map(({ url }) => ({ id: relayId(url), kind: 'relay' as const })),
        ...survey.addresses().map((each) => ({ id: directId(each), kind: 'direct-tcp' as const })),
      ];
      chooser.offer(all);
      const ids = new Set(all.map(({ id }) => id));
      for (const id of found.keys()) if (!ids.has(id)) found.delete(id);
    },
    async relays(all) {
      if (!survey.may('relay')) return;
      const order = chooser.ranking(clock.now());
      const active = `${pipe.path.kind} ${pipe.path.via}`;
      const places = tickets.satellites.filter(({ url }) => {
        const at = order.indexOf(relayId(url));
        return relayId(url) === active || (at >= 0 && (all || at < nearby));
      });
      const measured = await Promise.all(
        places.map(async (place) => {
          const agentMs = agentMsOf(place);
          try {
            const clientMs = await prober.rtt(place.url, { timeoutMs: options.probeMs, signal });
            steer.book?.put(place.url, clientMs);
            return { place, agentMs, clientMs };
          } catch (error) {
            return { place, agentMs, clientMs: null, error: (error as Error).message };
          }
        }),
      );
      for (const { place, ...one } of rank(measured)) {
        chooser.sample(relayId(place.url), one.rttMs, clock.now());
        found.set(relayId(place.url), { kind: 'relay', via: place.url, ...one });
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
