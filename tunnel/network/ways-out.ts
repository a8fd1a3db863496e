import { readFileSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import ipaddr from 'ipaddr.js';
import { ownAddresses } from './addresses.ts';

type Interfaces = ReturnType<typeof networkInterfaces>;
interface RoutingTables {
  /** As /proc/net/route has it; empty: unknown. */
  ipv4: string;
  /** As /proc/net/ipv6_route has it. */
  ipv6: string;
}

/**
 * The addresses that this machine has in the networks around it: without those of interfaces that lead only to its own
 * containers and virtual machines. Docker adds and removes such an interface with each network, which does not change where
 * this machine is. Without a routing table, or a route that leaves the machine, it returns all addresses.
 */
export function outgoingAddresses(
  interfaces: Interfaces = networkInterfaces(),
  tables: RoutingTables = readTables(),
): string[] {
  const outgoing = waysOut(interfaces, tables);
  if (outgoing.size === 0) return ownAddresses(interfaces);
  return ownAddresses(
    Object.fromEntries(
      Object.entries(interfaces).filter(([name, addresses]) => outgoing.has(name) || isTunnel(addresses)),
    ),
  );
}

/**
 * True for interfaces without a hardware address: VPNs, whose routes are often in tables of their own (wg-quick, Tailscale), and
 * /proc/net/route has only the main one. Bridges of containers have a hardware address.
 */
const isTunnel = (addresses: Interfaces[string]) =>
  addresses?.some(({ mac, internal }) => !internal && mac === '00:00:00:00:00:00') ?? false;

/** The interfaces with a route to more than the network that they are connected to. */
function waysOut(interfaces: Interfaces, { ipv4, ipv6 }: RoutingTables): Set<string> {
  const found = new Set<string>();
  for (const line of ipv4.split('\n').slice(1)) {
    const [name, destination, gateway, , , , , mask] = line.split('\t');
    if (!name || !destination || !gateway || !mask) continue;
    const network = `${fromHex(destination)}/${prefixOf(mask)}`;
    const isConnected = (interfaces[name] ?? []).some(({ cidr }) => cidr && networkOf(cidr) === network);
    if (Number.parseInt(gateway, 16) !== 0 || !isConnected) found.add(name);
  }
  for (const line of ipv6.split('\n')) {
    const fields = line.trim().split(/\s+/);
    const [gateway, name] = [fields[4], fields[9]];
    if (gateway && name && /[^0]/.test(gateway)) found.add(name);
  }
  return found;
}

/** `010200C0` → `192.0.2.1`: the kernel prints the bytes of the word in the order of the processor, which is little-endian. */
const fromHex = (hex: string) =>
  hex
    .match(/../g)!
    .reverse()
    .map((byte) => Number.parseInt(byte, 16))
    .join('.');

const prefixOf = (mask: string) => ipaddr.IPv4.parse(fromHex(mask)).prefixLengthFromSubnetMask();

function networkOf(cidr: string): string | null {
  if (cidr.includes(':')) return null;
  return `${ipaddr.IPv4.networkAddressFromCIDR(cidr)}/${cidr.split('/')[1]}`;
}

function readTables(): RoutingTables {
  const read = (path: string) => {
    try {
      return readFileSync(path, 'utf8');
    } catch {
      // Not Linux, or hidden.
      return '';
    }
  };
  return { ipv4: read('/proc/net/route'), ipv6: read('/proc/net/ipv6_route') };
}
