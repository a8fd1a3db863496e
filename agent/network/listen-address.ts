import { createReadStream } from 'node:fs';
import { TunnelError } from '@cde/tunnel/errors.ts';
import { connectTarget, type Target } from '@cde/tunnel/streams/targets.ts';

type Protocol = 'tcp' | 'udp';
type NetworkTarget = Extract<Target, { kind: Protocol }>;

/** TCP_LISTEN, and the state of an unconnected UDP socket. */
const boundState = { tcp: '0A', udp: '07' };
const loopbackNames = new Set(['localhost', '127.0.0.1', '::1', 'ip6-localhost']);
/** Errors of a loopback connection if nothing listens or the address family is missing. */
const notListeningCodes = new Set(['target-refused', 'target-unreachable', 'target-not-found']);

/** True for host names that mean "in the workspace", whatever address its programs listen on. */
export const isLoopbackName = (host: string) => loopbackNames.has(host.toLowerCase());

/**
 * Connects to a program of the workspace. For a loopback name it also tries the addresses that the program listens on: it
 * may be only `::1` or the workspace's own address. They are looked up only after 127.0.0.1 has failed, since the tables
 * can be long.
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

/** Datagrams are not refused if nothing listens, so the address is looked up first. */
async function datagramTarget(target: NetworkTarget, root?: string): Promise<NetworkTarget> {
  const [host] = await listenAddresses('udp', target.port, root);
  return host === undefined ? target : { ...target, host };
}

/**
 * The addresses on this machine with a listener on the port: 127.0.0.1 first, then `::1`, then others. A wildcard counts
 * as the loopback address of its family. Empty without /proc.
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
    // The table is missing: not Linux, or no IPv6.
  }
}

/** Parses an address of /proc/net: 32-bit words in native byte order, which is little-endian on all our platforms. */
export function readAddress(hex: string): string | null {
  if (!/^([0-9A-F]{8}|[0-9A-F]{32})$/.test(hex)) return null;
  const bytes = hex.match(/.{8}/g)!.flatMap((word) => word.match(/../g)!.reverse());
  if (bytes.length === 4) {
    const address = bytes.map((byte) => Number.parseInt(byte, 16)).join('.');
    return address === '0.0.0.0' ? '127.0.0.1' : address;
  }
  const groups = Array.from({ length: 8 }, (_, at) => bytes[at * 2]! + bytes[at * 2 + 1]!);
  // `::` usually accepts IPv4 too, which has been tried already.
  if (groups.every((group) => group === '0000')) return '::1';
  const mapped = /^(0000:){5}FFFF:/.test(`${groups.join(':')}`);
  if (mapped) return readAddress(hex.slice(24));
  // URL parsing normalizes it to the shortest form.
  return new URL(`http://[${groups.join(':')}]`).hostname.slice(1, -1);
}
