import { getServers, Resolver } from 'node:dns/promises';
import { isIP } from 'node:net';
import { lookupWithin } from './lookup.ts';
import { round } from './udp-check.ts';

export interface DnsReport {
  /** The resolvers that this machine is configured to ask. */
  resolvers: { address: string; ms: number | null; error: string | null }[];
  /** Names as programs of this machine look them up, which includes /etc/hosts. */
  lookups: { host: string; ms: number | null; addresses: string[]; error: string | null }[];
}

const maxResolvers = 4;
const resolverTimeoutMs = 1_500;
/** A lookup of the system cannot be cancelled; it is only waited for so long. */
const lookupTimeoutMs = 2_500;

/** Answers that show that a resolver works, though not with an address. */
const answered = new Set(['ENODATA', 'ENOTFOUND', 'NXDOMAIN']);

/** Looks up the host names of `urls`, and asks each configured resolver for the first of them. Never rejects. */
export async function checkDns(
  urls: readonly string[],
  options: { signal: AbortSignal; servers?: readonly string[] | undefined; timeoutMs?: number },
): Promise<DnsReport> {
  const names = urls.map((url) => new URL(url).hostname.replace(/^\[|\]$/g, ''));
  const hosts = [...new Set(names)].filter((host) => isIP(host) === 0 && host !== 'localhost');
  const servers = (options.servers ?? configuredServers()).slice(0, maxResolvers);
  const [first] = hosts;
  const [resolvers, lookups] = await Promise.all([
    Promise.all(
      servers.map((address) =>
        first === undefined
          ? { address, ms: null, error: null }
          : askResolver(address, first, options.timeoutMs ?? resolverTimeoutMs),
      ),
    ),
    Promise.all(hosts.map((host) => timeLookup(host, options.signal))),
  ]);
  return { resolvers, lookups };
}

function configuredServers(): string[] {
  try {
    return getServers();
  } catch {
    return [];
  }
}

async function askResolver(
  address: string,
  host: string,
  timeoutMs: number,
): Promise<DnsReport['resolvers'][number]> {
  const resolver = new Resolver({ timeout: timeoutMs, tries: 1 });
  const began = performance.now();
  // c-ares waits longer than it was told to for some errors.
  const timer = setTimeout(() => resolver.cancel(), timeoutMs);
  try {
    resolver.setServers([address]);
    await resolver.resolve4(host);
    return { address, ms: round(performance.now() - began), error: null };
  } catch (error) {
    const { code = 'no answer' } = error as NodeJS.ErrnoException;
    if (answered.has(code)) return { address, ms: round(performance.now() - began), error: null };
    const isLate = code === 'ETIMEOUT' || code === 'ECANCELLED';
    return { address, ms: null, error: isLate ? `no answer within ${timeoutMs / 1000} s` : code };
  } finally {
    clearTimeout(timer);
  }
}

async function timeLookup(host: string, signal: AbortSignal): Promise<DnsReport['lookups'][number]> {
  const began = performance.now();
  try {
    const addresses = await lookupWithin(
      host,
      AbortSignal.any([signal, AbortSignal.timeout(lookupTimeoutMs)]),
    );
    return { host, ms: round(performance.now() - began), addresses, error: null };
  } catch (error) {
    return { host, ms: null, addresses: [], error: (error as Error).message };
  }
}
