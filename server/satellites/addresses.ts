import { Problem } from '@cde/api/problem.ts';
import { classifyAddress } from '@cde/tunnel/network/addresses.ts';
import { addressesOf, findForbidden, hostOf, isLoopback } from '../http/named-addresses.ts';

const portOf = ({ port, protocol }: URL) => port || (protocol === 'https:' ? '443' : '80');

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
  const ownIsLoopback = ownAddresses.some(isLoopback);

  async function check(host: string, what: string): Promise<string[]> {
    const addresses = await addressesOf(host);
    const forbidden = findForbidden(addresses, { allowLoopback: ownIsLoopback });
    if (forbidden !== null)
      throw new Problem('bad-request', `A satellite cannot be at ${what}.`, {
        detail: forbidden,
        hint: 'Start the satellite with --url set to the address at which agents and clients reach it.',
      });
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
