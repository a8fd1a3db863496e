import { isForbiddenAddress } from '../network/addresses.ts';
import { type PathKind, pathKinds } from '../pipe/path.ts';

/**
 * The agent's offer of other paths, sent to its client inside the session as one JSON object per line. Satellites cannot
 * read it.
 */
export interface Offer {
  /** The kinds that may carry streams. */
  paths: readonly PathKind[];
  /** Satellites at which the agent listens, with its round trip in milliseconds; null if unknown. */
  satellites: readonly { name: string; url: string; rttMs: number | null }[];
  /** The agent's own addresses, HOST:PORT with IPv6 addresses in brackets. */
  addresses: readonly string[];
}

/** Provides the agent's current offer. */
export interface OfferSource {
  current(): Offer;
  /** Subscribes to changes of `current`. Returns a function that unsubscribes. */
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

/** Parses HOST:PORT; null if it is invalid or forbidden (link-local addresses and the like). */
export function parseAddress(text: string): { host: string; port: number } | null {
  const match = /^(?:\[([0-9a-fA-F:.]{2,45})\]|([A-Za-z0-9.-]{1,253})):(\d{1,5})$/.exec(text);
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  if (!host || port < 1 || port > 65535) return null;
  // A malicious agent must not make clients connect to cloud metadata services.
  if (isForbiddenAddress(host)) return null;
  return { host, port };
}

/** Parses an offer; null if it is invalid. Ignores everything beyond the limits. */
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

/** Splits the agent's data into offers. Invalid and overlong lines are skipped. */
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
