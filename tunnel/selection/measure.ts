import { Agent as HttpAgent } from 'node:http';
import { Agent as HttpsAgent } from 'node:https';
import { sendRequest } from '@cde/api/send-request.ts';
import type { TicketSatellite } from '../auth/ticket-holder.ts';
import { TunnelError } from '../errors.ts';
import { proxyAgent } from '../network/proxy.ts';
import { relayPaths } from '../paths/relay-protocol.ts';

/** Known round trips to satellites by URL, in milliseconds. */
export interface RttCache {
  get(url: string): number | undefined;
  put(url: string, rttMs: number): void;
}

/** Measures round trips to satellites. */
export interface Prober {
  /**
   * The round trip in milliseconds: the minimum of a few requests over one connection, which excludes connecting.
   * Rejects with `satellite-unreachable` or `satellite-refused`.
   */
  rtt(url: string, options: { timeoutMs: number; signal: AbortSignal }): Promise<number>;
  /** Closes its connections. */
  close(): void;
}

/** The first includes connecting, the second cold caches. */
const requests = 3;
/** A probe has no body; a proxy may reply with a page. */
const maxReplyBytes = 1024 * 1024;

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
      let minMs = Number.POSITIVE_INFINITY;
      for (let i = 0; i < requests; i++) {
        const began = performance.now();
        try {
          await probeOnce(target, target.protocol === 'https:' ? agents.https : agents.http, signal);
        } catch (error) {
          // If a later request fails, the earlier results are good enough.
          if (minMs < Number.POSITIVE_INFINITY && !options.signal.aborted) return minMs;
          throw error;
        }
        minMs = Math.min(minMs, performance.now() - began);
      }
      return minMs;
    },
    close() {
      agents.http.destroy();
      agents.https.destroy();
    },
  };
}

/** The HTTP URL of a satellite's probe endpoint. */
export function probeUrl(satellite: string, path: string = relayPaths.probe): URL {
  const url = new URL(satellite);
  url.protocol = url.protocol === 'https:' || url.protocol === 'wss:' ? 'https:' : 'http:';
  url.pathname = url.pathname.replace(/\/+$/, '') + path;
  url.search = '';
  url.hash = '';
  return url;
}

/** Sends one probe request. Rejects like Prober.rtt. */
export async function probeOnce(url: URL, agent: HttpAgent, signal: AbortSignal): Promise<void> {
  const reply = await sendRequest(url, { method: 'GET', agent, signal, maxReplyBytes }).catch(
    (error: NodeJS.ErrnoException) => {
      const why = signal.aborted ? 'no answer in time' : (error.code ?? error.message);
      throw new TunnelError('satellite-unreachable', why);
    },
  );
  if (reply.status !== 204) throw new TunnelError('satellite-refused', `HTTP status ${reply.status}`);
}

export interface RankedSatellite {
  satellite: TicketSatellite;
  clientMs: number | null;
  agentMs: number | null;
  /** Their sum; null if the client cannot reach it. An unknown agent round trip counts as the slowest known one. */
  rttMs: number | null;
  error?: string;
}

/** Sorts satellites by the round trip from client to agent, unreachable ones last. */
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
 * Connecting and measuring takes about this many round trips. A satellite that has not answered after this many of
 * another one's full round trip to the agent cannot be better.
 */
const graceFactor = 5;
const graceMs = 50;

/**
 * Measures the satellites missing in `book` in parallel, and ranks all of them. Waits at most `timeoutMs`, and not for
 * satellites that are far behind the first.
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
