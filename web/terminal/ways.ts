import { listTerminalRoutes, probePath } from '@cde/api/satellite-terminals.ts';
import { call } from '../client.ts';

/** How long all measuring may take: as much later opens the terminal. */
const measureWithinMs = 1_000;
const samples = 3;
/** What is worth going another way, as for `cde ssh`: so much, or a tenth where that is more than chance. */
const gainMs = 10;
const gainShare = 0.1;
const noiseMs = 1;

/** A way from here to the agent, in the two halves that are known: null where one is not. */
export interface Halves {
  /** From this browser to the satellite, or to the server. */
  rttMs: number | null;
  /** From there to the agent. */
  agentRttMs: number | null;
}

/** A satellite at which this browser may open the terminal. */
export interface SatelliteWay extends Halves {
  name: string;
  url: string;
  code: string;
}

/** The way that a terminal goes. */
export interface Way {
  /** Null: over the server. */
  satellite: SatelliteWay | null;
  /** What was measured of each way, in words; empty where there is but one. */
  measured: string;
}

export const serverWay: Way = { satellite: null, measured: '' };

/** The whole round trip; null where a half of it is not known. */
function whole({ rttMs, agentRttMs }: Halves): number | null {
  return rttMs === null || agentRttMs === null ? null : rttMs + agentRttMs;
}

/**
 * The satellite that is so much nearer than the server's own way that it is worth it, or null. What is not known of the
 * server's way counts for it: that way is sure to be there.
 */
export function nearest(own: Halves, satellites: readonly SatelliteWay[]): SatelliteWay | null {
  // It has not answered in all that time.
  const ownMs = (own.rttMs ?? measureWithinMs) + (own.agentRttMs ?? 0);
  let best: SatelliteWay | null = null;
  let bestMs = ownMs;
  for (const satellite of satellites) {
    const ms = whole(satellite);
    if (ms === null || ms >= bestMs) continue;
    best = satellite;
    bestMs = ms;
  }
  const gain = ownMs - bestMs;
  return gain >= gainMs || (gain >= noiseMs && gain >= gainShare * ownMs) ? best : null;
}

/** Of each way that was measured, the shortest first: `12 ms over tokyo, 160 ms over the server`. */
export function wordsOf(own: Halves, satellites: readonly SatelliteWay[]): string {
  return [
    { name: 'the server', ms: whole(own) },
    ...satellites.map((one) => ({ name: one.name, ms: whole(one) })),
  ]
    .flatMap(({ name, ms }) => (ms === null ? [] : [{ name, ms }]))
    .sort((one, other) => one.ms - other.ms)
    .map(({ name, ms }) => `${Math.round(ms)} ms over ${name}`)
    .join(', ');
}

/** The round trip to a satellite, or to the server (''): the median of up to three. Null: nothing answered in time. */
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
    // Not there, or too far to be measured more often.
  }
  return found.sort((one, other) => one - other)[found.length >> 1] ?? null;
}

/** Asks where a terminal of the workspace may be opened, and measures. Never rejects: the server serves anyway. */
export async function findWay(workspace: string): Promise<Way> {
  try {
    const { own, satellites } = await call(listTerminalRoutes, { params: { workspace } });
    if (satellites.length === 0) return serverWay;
    const signal = AbortSignal.timeout(measureWithinMs);
    const [ownMs, ...others] = await Promise.all(
      ['', ...satellites.map(({ url }) => url)].map((url) => measure(url, signal)),
    );
    const ownWay = { ...own, rttMs: ownMs ?? null };
    const ways = satellites.map((one, index) => ({ ...one, rttMs: others[index] ?? null }));
    return { satellite: nearest(ownWay, ways), measured: wordsOf(ownWay, ways) };
  } catch {
    // Whatever it is, the server's own way says it better.
    return serverWay;
  }
}
