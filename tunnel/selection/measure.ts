import { Agent as HttpAgent, request as httpRequest, type IncomingMessage } from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import type { TicketSatellite } from '../auth/ticket-holder.ts';
import { TunnelError } from '../errors.ts';
import { proxyAgent } from '../network/proxy.ts';
import { relayPaths } from '../paths/relay-protocol.ts';

/** What is known of round trips to satellites, by URL, in milliseconds. */
export interface RttCache {
  get(url: string): number | undefined;
  put(url: string, rttMs: number): void;
}

/** Asks satellites how far they are. */
export interface Prober {
  /**
   * The round trip to a satellite in milliseconds: the least of a few requests over one connection, so that
   * connecting does not count. Rejects with `satellite-unreachable` or `satellite-refused`.
   */
  rtt(url: string, options: { timeoutMs: number; signal: AbortSignal }): Promise<number>;
  /** Closes its connections. */
  close(): void;
}

/** The first pays for connecting, the second for whatever was cold. */
const requests = 3;

export function makeProber(): Prober {
  const agentOptions = { keepAlive: true, maxSockets: 1 };
  const agents = {
    http: new HttpAgent(agentOptions),
    https: proxyAgent(agentOptions) ?? new HttpsAgent(agentOptions),
  };
  return {
    async rtt(url, options) {
      const target = probeUrl(url);
      const signal = AbortSignal.any([options.signal, AbortSignal.timeout(options.timeoutMs)]);
      let least = Number.POSITIVE_INFINITY;
      for (let i = 0; i < requests; i++) {
        const began = performance.now();
        try {
          await probeOnce(target, target.protocol === 'https:' ? agents.https : agents.http, signal);
        } catch (error) {
          // The first answers are good enough where a later one got lost.
          if (least < Number.POSITIVE_INFINITY && !options.signal.aborted) return least;
          throw error;
        }
        least = Math.min(least, performance.now() - began);
      }
      return least;
    },
    close() {
      agents.http.destroy();
      agents.https.destroy();
    },
  };
}

/** Of one of a satellite's probes. */
export function probeUrl(satellite: string, path: string = relayPaths.probe): URL {
  const url = new URL(satellite);
  url.protocol = url.protocol === 'https:' || url.protocol === 'wss:' ? 'https:' : 'http:';
  url.pathname = url.pathname.replace(/\/+$/, '') + path;
  url.search = '';
  url.hash = '';
  return url;
}

/** Asks once, over a connection of the agent. Rejects as Prober's rtt. */
export function probeOnce(url: URL, agent: HttpAgent, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const send = url.protocol === 'https:' ? httpsRequest : httpRequest;
    const request = send(url, { agent, signal }, (response: IncomingMessage) => {
      response.resume();
      response.once('end', () =>
        response.statusCode === 204
          ? resolve()
          : reject(new TunnelError('satellite-refused', `HTTP status ${response.statusCode}`)),
      );
      response.once('error', reject);
    });
    request.on('error', (error: NodeJS.ErrnoException) =>
      reject(
        new TunnelError(
          'satellite-unreachable',
          signal.aborted ? 'no answer in time' : (error.code ?? error.message),
        ),
      ),
    );
    request.end();
  });
}

export interface RankedSatellite {
  satellite: TicketSatellite;
  clientMs: number | null;
  agentMs: number | null;
  /** Both together; null when this client cannot reach it. An agent's that is not known counts as the slowest known. */
  rttMs: number | null;
  error?: string;
}

/** The satellites by round trip from client to agent, the least first, those that cannot be reached last. */
export function rank(measured: readonly Omit<RankedSatellite, 'rttMs'>[]): RankedSatellite[] {
  const slowest = Math.max(0, ...measured.map(({ agentMs }) => agentMs ?? 0));
  const all = measured.map((each) => ({
    ...each,
    rttMs: each.clientMs === null ? null : each.clientMs + (each.agentMs ?? slowest),
  }));
  const order = ({ rttMs }: RankedSatellite) => rttMs ?? Number.MAX_VALUE;
  return all.sort((one, other) => order(one) - order(other));
}

/**
 * Connecting and measuring takes a satellite about so many of its round trips. One that has not answered after as
 * many of another's whole way to the agent cannot be better than that.
 */
const graceFactor = 5;
const graceMs = 50;

/**
 * Measures the satellites that `book` knows nothing of, all at once, and ranks all. Waits `timeoutMs` at most, and
 * not for those that are far behind the first.
 */
export async function rankSatellites(
  satellites: readonly TicketSatellite[],
  book: RttCache,
  options: { timeoutMs: number; signal: AbortSignal; prober?: Prober },
): Promise<RankedSatellite[]> {
  const prober = options.prober ?? makeProber();
  const enough = new AbortController();
  const signal = AbortSignal.any([options.signal, enough.signal]);
  const began = performance.now();
  let grace: NodeJS.Timeout | undefined;
  try {
    return rank(
      await Promise.all(
        satellites.map(async (satellite) => {
          const agentMs = satellite.agentRttMs ?? null;
          const known = book.get(satellite.url);
          if (known !== undefined) return { satellite: satellite, clientMs: known, agentMs };
          try {
            const clientMs = await prober.rtt(satellite.url, { timeoutMs: options.timeoutMs, signal });
            book.put(satellite.url, clientMs);
            const left = (clientMs + (agentMs ?? 0)) * graceFactor + graceMs - (performance.now() - began);
            grace ??= setTimeout(() => enough.abort(), Math.max(left, graceMs));
            return { satellite: satellite, clientMs, agentMs };
          } catch (error) {
            return { satellite: satellite, clientMs: null, agentMs, error: (error as Error).message };
          }
        }),
      ),
    );
  } finally {
    clearTimeout(grace);
    if (!options.prober) prober.close();
  }
}
