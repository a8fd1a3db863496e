import { lookup as dnsLookup, type LookupAddress, type LookupOptions } from 'node:dns';
import ipaddr from 'ipaddr.js';

/** Where clouds answer with the credentials of the machine, beside the link-local addresses. */
const metadata = new Set([
  'fd00:ec2::254',
  '100.100.100.200',
  '168.63.129.16',
  '192.0.0.192',
  'fd20:ce::254',
]);

/** Networks of IPv6 whose addresses lead to one of IPv4, and where that stands in the 16 bytes. */
const embedded: readonly (readonly [network: string, prefix: number, at: number])[] = [
  ['::', 96, 12],
  ['::ffff:0:0:0', 96, 12],
  ['64:ff9b::', 96, 12],
  ['64:ff9b:1::', 48, 12],
  ['2002::', 16, 2],
];

type Address = ipaddr.IPv4 | ipaddr.IPv6;

/** What an address leads to: that of IPv4 where it is one of IPv6 that only carries it. */
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
 * What an IP address is, however it is written: `2852039166`, `0xa9fea9fe`, `0251.0376.0251.0376` and
 * `::ffff:169.254.169.254` are one address. Null: no IP address.
 */
export function classifyAddress(text: string): 'loopback' | 'forbidden' | 'other' | null {
  const plain = text.replace(/^\[|\]$/g, '').replace(/%.*$/, '');
  if (!ipaddr.isValid(plain)) return null;
  const address = unwrapEmbeddedIpv4(ipaddr.parse(plain));
  if (metadata.has(address.toString())) return 'forbidden';
  const range = address.range();
  if (range === 'loopback') return 'loopback';
  // Nobody's, or everybody's. (0.0.0.0/8 leads to the machine itself.)
  const isFuture = address.kind() === 'ipv4' && address.toByteArray()[0]! >= 240;
  return isFuture || ['linkLocal', 'unspecified', 'multicast', 'broadcast', 'teredo'].includes(range)
    ? 'forbidden'
    : 'other';
}

/** True of an address that nothing of ours is at, and that must not be asked on somebody's word: metadata services above all. */
export const isForbiddenAddress = (text: string): boolean => classifyAddress(text) === 'forbidden';

/**
 * For `net.connect`: as dns.lookup, but a name that leads to a forbidden address fails. It is asked at the time of connecting,
 * so that the name cannot lead elsewhere by then.
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
        Object.assign(new Error(`${host} leads to ${forbidden.address}, which is not allowed`), {
          code: 'EACCES',
        }),
        '',
      );
    if (options.all) return callback(null, found);
    callback(null, found[0]!.address, found[0]!.family);
  });
}
