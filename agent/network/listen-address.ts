import { createReadStream } from 'node:fs';
import { TunnelError } from '@cde/tunnel/errors.ts';
import { connectTarget, type Target } from '@cde/tunnel/streams/targets.ts';

type Protocol = 'tcp' | 'udp';
type NetworkTarget = Extract<Target, { kind: Protocol }>;

/** TCP_LISTEN, and the state of a UDP socket that is bound and not connected. */
const boundState = { tcp: '0A', udp: '07' };
const loopbackNames = new Set(['localhost', '127.0.0.1', '::1', 'ip6-localhost']);
/** What a loopback connection fails with where nothing listens, or where the address family is missing. */
const notListeningCodes = new Set(['target-refused', 'target-unreachable', 'target-not-found']);

/** True for the names and addresses by which people mean "in the workspace", whatever its programs listen on. */
export const isLoopbackName = (host: string) => loopbackNames.has(host.toLowerCase());

/**
 * Connects to a program of the workspace. Asked for by a loopback name it may listen on another address: on `::1` alone, or on
 * the workspace's own address. Those are looked up only after the loopback itself refuses, since the tables can be long.
 */
export async function connectInWorkspace(
  target: Exclude<Target, { kind: 'ssh' | 'files' }>,
  options: { connect?: typeof connectTarget; root?: string } = {},
) {
  const connect = options.connect ?? connectTarget;
  if (target.kind === 'unix' || !isLoopbackName(target.host)) return connect(target);
  if (target.kind === 'udp') return connect(await datagramTarget(target, options.root));
  try {
    return await connect(target);
  } catch (error) {
    if (!(error instanceof TunnelError) || !notListeningCodes.has(error.code)) throw error;
    for (const host of await listenAddresses('tcp', target.port, options.root)) {
      const socket = await connect({ ...target, host }).catch(() => null);
      if (socket) return socket;
    }
    throw error;
  }
}

/** A datagram to nobody is not refused, so the address is looked up first. */
async function datagramTarget(target: NetworkTarget, root?: string): Promise<NetworkTarget> {
  const [host] = await listenAddresses('udp', target.port, root);
  return host === undefined ? target : { ...target, host };
}

/**
 * The addresses at which something on this machine listens on the port: 127.0.0.1 first, then `::1`, then others. A wildcard
 * is the loopback of its family. Empty where there is no /proc.
 */
export async function listenAddresses(protocol: Protocol, port: number, root = ''): Promise<string[]> {
  const found = new Set<string>();
  for (const file of [protocol, `${protocol}6`])
    await readAddresses(`${root}/proc/net/${file}`, boundState[protocol], port, found);
  const rank = (host: string) => (host === '127.0.0.1' ? 0 : host === '::1' ? 1 : 2);
  return [...found].sort((one, other) => rank(one) - rank(other));
}

async function readAddresses(path: string, state: string, port: number, found: Set<string>): Promise<void> {
  const wanted = `:${port.toString(16).toUpperCase().padStart(4, '0')}`;
  let rest = '';
  try {
    for await (const chunk of createReadStream(path, { encoding: 'latin1', highWaterMark: 64 * 1024 })) {
      const lines = (rest + chunk).split('\n');
      rest = lines.pop()!;
      for (const line of lines) {
        // sl local_address rem_address st …
        const [, local = '', , isState] = line.trimStart().split(/\s+/, 4);
        if (isState !== state || !local.endsWith(wanted)) continue;
        const address = readAddress(local.slice(0, -wanted.length));
        if (address !== null) found.add(address);
      }
    }
  } catch {
    // No such table: not Linux, or no IPv6.
  }
}

/** An address as /proc/net has it: 32-bit words in the machine's byte order, which is little-endian wherever we run. */
export function readAddress(hex: string): string | null {
  if (!/^([0-9A-F]{8}|[0-9A-F]{32})$/.test(hex)) return null;
  const bytes = hex.match(/.{8}/g)!.flatMap((word) => word.match(/../g)!.reverse());
  if (bytes.length === 4) {
    const address = bytes.map((byte) => Number.parseInt(byte, 16)).join('.');
    return address === '0.0.0.0' ? '127.0.0.1' : address;
  }
  const groups = Array.from({ length: 8 }, (_, at) => bytes[at * 2]! + bytes[at * 2 + 1]!);
  // `::` takes IPv4 too, unless told otherwise; that has been tried.
  if (groups.every((group) => group === '0000')) return '::1';
  const mapped = /^(0000:){5}FFFF:/.test(`${groups.join(':')}`);
  if (mapped) return readAddress(hex.slice(24));
  // In the shortest form that WHATWG knows, as everybody writes it.
  return new URL(`http://[${groups.join(':')}]`).hostname.slice(1, -1);
}
