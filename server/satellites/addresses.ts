import { lookup } from 'node:dns/promises';
import { setTimeout } from 'node:timers/promises';
import { Problem } from '@cde/api/problem.ts';
import { classifyAddress } from '@cde/tunnel/network/addresses.ts';

/** A resolver that does not answer must not block a registration, because clients resolve the name themselves anyway. */
const resolveTimeoutMs = 2_000;

const portOf = ({ port, protocol }: URL) => port || (protocol === 'https:' ? '443' : '80');
const hostOf = ({ hostname }: URL) => hostname.replace(/^\[|\]$/g, '');

/** The addresses of a host; none if it cannot be resolved here. */
async function addressesOf(host: string): Promise<string[]> {
  if (classifyAddress(host) !== null) return [host];
  const found = lookup(host, { all: true }).catch(() => []);
  const late = setTimeout(resolveTimeoutMs, [], { ref: false });
  return (await Promise.race([found, late])).map(({ address }) => address);
}

/**
 * Throws `bad-request` if a satellite registers with an address that cannot be its own, because agents, clients and
 * browsers connect to whatever it registers. Loopback is allowed only if the server itself is on loopback.
 */
export async function checkSatelliteAddress(
  given: { url: string; stun: string | null },
  accessUrl: string,
): Promise<void> {
  const own = new URL(accessUrl);
  const url = new URL(given.url);
  const ownAddresses = await addressesOf(hostOf(own));
  const isLoopback = (address: string) => classifyAddress(address) === 'loopback';
  const ownIsLoopback = ownAddresses.some(isLoopback);

  async function check(host: string, what: string): Promise<string[]> {
    const addresses = await addressesOf(host);
    for (const address of addresses) {
      const kind = classifyAddress(address);
      if (kind === 'forbidden' || (kind === 'loopback' && !ownIsLoopback))
        throw new Problem('bad-request', `A satellite cannot be at ${what}.`, {
          detail: `It resolves to ${address}, which is ${kind === 'loopback' ? "each machine's own loopback address" : 'link-local, a metadata service or unassigned'}.`,
          hint: 'Start the satellite with --url set to the address at which agents and clients reach it.',
        });
    }
    return addresses;
  }

  const addresses = await check(hostOf(url), given.url);
  if (given.stun !== null) await check(given.stun.replace(/:\d+$/, '').replace(/^\[|\]$/g, ''), given.stun);
  // The same name, or one of its addresses. Two names behind one load balancer count as two hosts.
  const isSameHost =
    hostOf(url) === hostOf(own) ||
    (classifyAddress(hostOf(url)) !== null && ownAddresses.includes(hostOf(url))) ||
    (ownIsLoopback && addresses.some(isLoopback));
  if (isSameHost && portOf(url) === portOf(own))
    throw new Problem('bad-request', "A satellite cannot be at the dashboard's own address.", {
      detail: `${given.url} is ${accessUrl}.`,
      hint: 'Start the satellite with --url set to its own address.',
    });
}
