import { lookup } from 'node:dns/promises';
import { setTimeout } from 'node:timers/promises';
import { Problem } from '@cde/api/problem.ts';
import { classifyAddress } from '@cde/tunnel/network/addresses.ts';

/** A resolver that does not answer must not hold up a registration: clients resolve the name themselves. */
const resolveTimeoutMs = 2_000;

const portOf = ({ port, protocol }: URL) => port || (protocol === 'https:' ? '443' : '80');
const hostOf = ({ hostname }: URL) => hostname.replace(/^\[|\]$/g, '');

/** What a host leads to: itself where it is an address, nothing where it cannot be resolved here. */
async function addressesOf(host: string): Promise<string[]> {
  if (classifyAddress(host) !== null) return [host];
  const found = lookup(host, { all: true }).catch(() => []);
  const late = setTimeout(resolveTimeoutMs, [], { ref: false });
  return (await Promise.race([found, late])).map(({ address }) => address);
}

/**
 * Throws `bad-request` where a satellite says that it is at an address that cannot be its own: agents, clients and browsers
 * go wherever it says. Loopback is for servers that are on loopback themselves.
 */
export async function checkSatelliteAddress(
  said: { url: string; stun: string | null },
  accessUrl: string,
): Promise<void> {
  const own = new URL(accessUrl);
  const url = new URL(said.url);
  const ownAddresses = await addressesOf(hostOf(own));
  const isLoopback = (address: string) => classifyAddress(address) === 'loopback';
  const ownIsLoopback = ownAddresses.some(isLoopback);

  async function check(host: string, what: string): Promise<string[]> {
    const addresses = await addressesOf(host);
    for (const address of addresses) {
      const kind = classifyAddress(address);
      if (kind === 'forbidden' || (kind === 'loopback' && !ownIsLoopback))
        throw new Problem('bad-request', `A satellite cannot be at ${what}.`, {
          detail: `It leads to ${address}, which is ${kind === 'loopback' ? "each machine's own loopback" : 'link-local, a metadata service, or nobody’s'}.`,
          hint: 'Start the satellite with the address that agents and clients reach it by: --url.',
        });
    }
    return addresses;
  }

  const addresses = await check(hostOf(url), said.url);
  if (said.stun !== null) await check(said.stun.replace(/:\d+$/, '').replace(/^\[|\]$/g, ''), said.stun);
  // By name, or by an address of it. Two names behind one load balancer are two.
  const isSameHost =
    hostOf(url) === hostOf(own) ||
    (classifyAddress(hostOf(url)) !== null && ownAddresses.includes(hostOf(url))) ||
    (ownIsLoopback && addresses.some(isLoopback));
  if (isSameHost && portOf(url) === portOf(own))
    throw new Problem('bad-request', "A satellite cannot be at the dashboard's own address.", {
      detail: `${said.url} is ${accessUrl}.`,
      hint: 'Start the satellite with its own address: --url.',
    });
}
