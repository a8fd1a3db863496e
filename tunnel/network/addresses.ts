import { lookup as dnsLookup, type LookupAddress, type LookupOptions } from 'node:dns';
import { networkInterfaces } from 'node:os';
import ipaddr from 'ipaddr.js';

/** Cloud metadata services, which hand out machine credentials, at addresses that are not link-local. */
const metadata = new Set([
  'fd00:ec2::254',
  '100.100.100.200',
  '168.63.129.16',
  '192.0.0.192',
  'fd20:ce::254',
]);

/** IPv6 networks that embed an IPv4 address, and the offset of that address in the 16 bytes. */
const embedded: readonly (readonly [network: string, prefix: number, at: number])[] = [
  ['::', 96, 12],
  ['::ffff:0:0:0', 96, 12],
  ['64:ff9b::', 96, 12],
  ['64:ff9b:1::', 48, 12],
  ['2002::', 16, 2],
];

type Address = ipaddr.IPv4 | ipaddr.IPv6;

/** Returns the embedded IPv4 address of an IPv6 address that only carries one, else the address itself. */
function unwrapEmbeddedIpv4(address: Address): Address {
  if (address.kind() === 'ipv4') return address;
  const v6 = address as ipaddr.IPv6;
  if (v6.isIPv4MappedAddress()) return v6.toIPv4Address();
  const bytes = v6.toByteArray();
  const text = v6.toString();
  if (text === '::' || text === '::1') return v6;
  for (const [network, prefix, at] of embedded)
    if (v6.match(ipaddr.IPv6.parse(network), prefix)) return new ipaddr.IPv4(bytes.slice(at, at + 4));
  return v6;
}

/**
 * Classifies an IP address in any notation: `2852039166`, `0xa9fea9fe`, `0251.0376.0251.0376` and
 * `::ffff:169.254.169.254` are the same address. Returns null if the text is not an IP address.
 */
export function classifyAddress(text: string): 'loopback' | 'forbidden' | 'other' | null {
  const plain = text.replace(/^\[|\]$/g, '').replace(/%.*$/, '');
  if (!ipaddr.isValid(plain)) return null;
  const address = unwrapEmbeddedIpv4(ipaddr.parse(plain));
  if (metadata.has(address.toString())) return 'forbidden';
  const range = address.range();
  if (range === 'loopback') return 'loopback';
  // 0.0.0.0/8 reaches the machine itself; 240.0.0.0/4 is reserved.
  const isReserved = address.kind() === 'ipv4' && address.toByteArray()[0]! >= 240;
  return isReserved || ['linkLocal', 'unspecified', 'multicast', 'broadcast', 'teredo'].includes(range)
    ? 'forbidden'
    : 'other';
}

/** True for addresses that must not be contacted because a peer named them, cloud metadata services above all. */
export const isForbiddenAddress = (text: string): boolean => classifyAddress(text) === 'forbidden';

/**
 * A `lookup` for `net.connect` that fails for names that resolve to a forbidden address. Checking at connect time
 * leaves no window for DNS rebinding.
 */
export function lookupAllowed(
  host: string,
  options: LookupOptions,
  callback: (error: NodeJS.ErrnoException | null, address: string | LookupAddress[], family?: number) => void,
): void {
  dnsLookup(host, { ...options, all: true }, (error, found) => {
    if (error) return callback(error, '');
    const forbidden = found.find(({ address }) => isForbiddenAddress(address));
    if (forbidden)
      return callback(
        Object.assign(new Error(`${host} resolves to ${forbidden.address}, which is not allowed`), {
          code: 'EACCES',
        }),
        '',
      );
    if (options.all) return callback(null, found);
    callback(null, found[0]!.address, found[0]!.family);
  });
}

/** This machine's addresses that other machines can reach, IPv4 first. Omits loopback and link-local ones. */
export function ownAddresses(interfaces = networkInterfaces()): string[] {
  const all = Object.values(interfaces)
    .flatMap((each) => each ?? [])
    .filter(({ internal, address }) => !internal && !isForbiddenAddress(address));
  return [
    ...all.filter(({ family }) => family === 'IPv4'),
    ...all.filter(({ family }) => family === 'IPv6'),
  ].map(({ address }) => address);
}
