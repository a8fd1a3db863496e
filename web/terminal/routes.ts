import { listTerminalRoutes, probePath } from '@cde/api/satellite-terminals.ts';
import { call } from '../client.ts';

/** The timeout for all measurements, which delay the terminal. */
const measureTimeoutMs = 1_000;
const samples = 3;
/**
 * The gain that justifies a satellite, as for `cde ssh`: this many ms, or a tenth of the round trip if that exceeds the
 * noise.
 */
const gainMs = 10;
const gainShare = 0.1;
const noiseMs = 1;

/** The round trip from the browser to the agent, in two parts; null if unknown. */
export interface RoundTrips {
  /** From the browser to the satellite or server. */
  rttMs: number | null;
  /** From there to the agent. */
  agentRttMs: number | null;
}

/** A satellite at which this browser may open the terminal. */
export interface SatelliteRoute extends RoundTrips {
  name: string;
  url: string;
  code: string;
}

/** How a terminal connects. */
export interface TerminalRoute {
  /** Null: through the server. */
  satellite: SatelliteRoute | null;
  /** The measurements for people to read; empty if there is only one route. */
  measured: string;
}

export const serverRoute: TerminalRoute = { satellite: null, measured: '' };

/** The whole round trip; null if a part is unknown. */
function totalMs({ rttMs, agentRttMs }: RoundTrips): number | null {
  return rttMs === null || agentRttMs === null ? null : rttMs + agentRttMs;
}

/**
 * Chooses the satellite with the shortest round trip, if it is shorter than the server's by enough; null otherwise.
 * Unknown parts of the server's round trip count as 0, because the server always works.
 */
export function chooseSatellite(
  own: RoundTrips,
  satellites: readonly SatelliteRoute[],
): SatelliteRoute | null {
  // Without a response, the server's round trip is at least the timeout.
  const ownMs = (own.rttMs ?? measureTimeoutMs) + (own.agentRttMs ?? 0);
  let best: SatelliteRoute | null = null;
  let bestMs = ownMs;
  for (const satellite of satellites) {
    const ms = totalMs(satellite);
    if (ms === null || ms >= bestMs) continue;
    best = satellite;
    bestMs = ms;
  }
  const gain = ownMs - bestMs;
  return gain >= gainMs || (gain >= noiseMs && gain >= gainShare * ownMs) ? best : null;
}

/** Lists the measured routes, shortest first: `12 ms over tokyo, 160 ms over the server`. */
export function describeRoutes(own: RoundTrips, satellites: readonly SatelliteRoute[]): string {
  return [
    { name: 'the server', ms: totalMs(own) },
    ...satellites.map((one) => ({ name: one.name, ms: totalMs(one) })),
  ]
    .flatMap(({ name, ms }) => (ms === null ? [] : [{ name, ms }]))
    .sort((one, other) => one.ms - other.ms)
    .map(({ name, ms }) => `${Math.round(ms)} ms over ${name}`)
    .join(', ');
}

/** The round trip to a satellite, or to the server (''): the median of up to three. Null: no response in time. */
async function measure(url: string, signal: AbortSignal): Promise<number | null> {
  const found: number[] = [];
  try {
    // The first one also connects.
    for (let count = -1; count < samples; count++) {
      const began = performance.now();
      await fetch(url + probePath, { mode: 'no-cors', cache: 'no-store', credentials: 'omit', signal });
      if (count >= 0) found.push(performance.now() - began);
    }
  } catch {
    // Unreachable, or too far for more samples.
  }
  return found.sort((one, other) => one - other)[found.length >> 1] ?? null;
}

/**
 * Measures the satellites at which the workspace's terminal can be opened. Never rejects, because the server always
 * serves.
 */
export async function findRoute(workspace: string): Promise<TerminalRoute> {
  try {
    const { own, satellites } = await call(listTerminalRoutes, { params: { workspace } });
    if (satellites.length === 0) return serverRoute;
    const signal = AbortSignal.timeout(measureTimeoutMs);
    const [ownMs, ...others] = await Promise.all(
      ['', ...satellites.map(({ url }) => url)].map((url) => measure(url, signal)),
    );
    const ownWay = { ...own, rttMs: ownMs ?? null };
    const ways = satellites.map((one, index) => ({ ...one, rttMs: others[index] ?? null }));
    return { satellite: chooseSatellite(ownWay, ways), measured: describeRoutes(ownWay, ways) };
  } catch {
    // Connecting through the server gives a better error.
    return serverRoute;
  }
}
