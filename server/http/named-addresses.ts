import { lookup } from 'node:dns/promises';
import { setTimeout } from 'node:timers/promises';
import { classifyAddress } from '@cde/tunnel/network/addresses.ts';

/** A resolver that does not answer must not block the request that names a host, because it is resolved again on use. */
const resolveTimeoutMs = 2_000;

export const hostOf = ({ hostname }: URL): string => hostname.replace(/^\[|\]$/g, '');
export const isLoopback = (address: string): boolean => classifyAddress(address) === 'loopback';

/** The addresses of a host; none if it cannot be resolved here. */
export async function addressesOf(host: string): Promise<string[]> {
  if (classifyAddress(host) !== null) return [host];
  const found = lookup(host, { all: true }).catch(() => []);
  const late = setTimeout(resolveTimeoutMs, [], { ref: false });
  return (await Promise.race([found, late])).map(({ address }) => address);
}

/** Why one of the addresses of a host that somebody named must not be contacted, as a sentence; null if all are fine. */
export function findForbidden(
  addresses: readonly string[],
  { allowLoopback }: { allowLoopback: boolean },
): string | null {
  for (const address of addresses) {
    const kind = classifyAddress(address);
    if (kind === 'loopback' && !allowLoopback)
      return `It resolves to ${address}, which is each machine's own loopback address.`;
    if (kind === 'forbidden')
      return `It resolves to ${address}, which is link-local, a metadata service or unassigned.`;
  }
  return null;
}
