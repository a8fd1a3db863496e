import { isForbiddenAddress } from '../network/addresses.ts';
import { type PathKind, pathKinds } from '../pipe/path.ts';

/**
 * What an agent tells its client, inside the session, of other ways to it: one JSON object a line. Satellites
 * see nothing of it.
 */
export interface Offer {
  /** The kinds that may carry streams. */
  paths: readonly PathKind[];
  /** Where it listens, and its own round trip there in milliseconds; null while it is not known. */
  satellites: readonly { name: string; url: string; rttMs: number | null }[];
  /** Of its own, HOST:PORT: an IPv6 address in brackets. */
  addresses: readonly string[];
}

/** Where the agent's offers come from. */
export interface OfferSource {
  current(): Offer;
  /** Calls back when `current` may have changed. Returns the stopper. */
  onChange(changed: () => void): () => void;
}

const maxSatellites = 20;
const maxAddresses = 8;
const maxLineLength = 16 * 1024;

export function formatOffer({ paths, satellites, addresses }: Offer): string {
  return `${JSON.stringify({
    paths,
    satellites: satellites.slice(0, maxSatellites),
    addresses: addresses.slice(0, maxAddresses),
  })}\n`;
}

/** Takes HOST:PORT apart; null where it is none, or leads to where no agent is: link-local addresses. */
export function parseAddress(text: string): { host: string; port: number } | null {
  const match = /^(?:\[([0-9a-fA-F:.]{2,45})\]|([A-Za-z0-9.-]{1,253})):(\d{1,5})$/.exec(text);
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  if (!host || port < 1 || port > 65535) return null;
  // Cloud metadata services live here; an agent that is not what it seems must not have us knock there.
  if (isForbiddenAddress(host)) return null;
  return { host, port };
}

/** An offer from a line of JSON; null for anything else. Takes no more of it than an agent offers. */
function parseOffer(line: string): Offer | null {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return null;
  }
  if (typeof value !== 'object' || value === null) return null;
  const { paths, satellites, addresses } = value as Record<string, unknown>;
  if (![paths, satellites, addresses].every(Array.isArray)) return null;
  return {
    paths: pathKinds.filter((kind) => (paths as unknown[]).includes(kind)),
    satellites: (satellites as unknown[]).slice(0, maxSatellites).flatMap((each) => {
      const { name, url, rttMs } = (each ?? {}) as Record<string, unknown>;
      if (typeof name !== 'string' || typeof url !== 'string') return [];
      const known = typeof rttMs === 'number' && rttMs >= 0 && rttMs < 60_000;
      return [{ name, url, rttMs: known ? rttMs : null }];
    }),
    addresses: (addresses as unknown[])
      .slice(0, maxAddresses)
      .filter((each): each is string => typeof each === 'string' && parseAddress(each) !== null),
  };
}

/** Cuts what an agent says into offers; lines that are none, or too long, are passed over. */
export function makeOfferReader(onOffer: (offer: Offer) => void): (chunk: string) => void {
  let rest = '';
  return (chunk) => {
    const lines = (rest + chunk).split('\n');
    rest = lines.pop()!.slice(0, maxLineLength);
    for (const line of lines) {
      const offer = line.length < maxLineLength ? parseOffer(line) : null;
      if (offer) onOffer(offer);
    }
  };
}
