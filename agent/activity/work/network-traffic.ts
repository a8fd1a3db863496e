import { subscribe } from 'node:diagnostics_channel';
import { readFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { udpBytes } from '@cde/tunnel/paths/udp-traffic.ts';

/** Traffic within the workspace: the loopback, and what containers in it send each other. */
const innerInterfaces = /^(lo|veth.*|docker\d*|br-.*|cni.*|virbr.*|podman\d*)$/;
/** Headers of TCP/IP and TLS, acknowledgements and retransmissions, which the interface counts and sockets do not. */
const overhead = 1.25;

/** Bytes that crossed the interfaces of this network; null if that is unknown. */
export function readInterfaces(root = ''): number | null {
  let text: string;
  try {
    text = readFileSync(`${root}/proc/net/dev`, 'latin1');
  } catch {
    return null;
  }
  let sum = 0;
  for (const line of text.split('\n')) {
    const [, name, counters] = /^\s*([^\s:]+):(.*)$/.exec(line) ?? [];
    if (!name || innerInterfaces.test(name)) continue;
    const fields = counters!.trim().split(/\s+/);
    // Received and sent bytes.
    sum += Number(fields[0]) + Number(fields[8]);
  }
  return sum;
}

/** Counts what the agent itself sends and receives: sessions, satellites, the server. */
export function countOwnTraffic(): () => number {
  const open = new Set<Socket>();
  let closed = 0;
  const bytesOf = (socket: Socket) =>
    isLocal(socket) ? 0 : (socket.bytesRead ?? 0) + (socket.bytesWritten ?? 0);
  const add = (message: unknown) => {
    const { socket } = message as { socket: Socket };
    open.add(socket);
    let isInner = false;
    socket.once('connect', () => {
      isInner = isLocal(socket);
    });
    socket.once('close', () => {
      open.delete(socket);
      // A closed socket has no address any more.
      if (!isInner) closed += (socket.bytesRead ?? 0) + (socket.bytesWritten ?? 0);
    });
  };
  subscribe('net.client.socket', add);
  subscribe('net.server.socket', add);
  return () => {
    let sum = closed + udpBytes();
    for (const socket of open) sum += bytesOf(socket);
    return sum * overhead;
  };
}

/** Connections to programs in the workspace, and Unix sockets, which have no address. */
const isLocal = ({ remoteAddress }: Socket) =>
  remoteAddress === undefined || /^(::ffff:)?127\.|^::1$/.test(remoteAddress);
