import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { readFileSync } from 'node:fs';
import type { ClientRequest } from 'node:http';
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

export interface OwnTraffic {
  bytes(): number;
  close(): void;
}

/** Counts what the agent itself sends and receives: sessions, satellites, the server. */
export function countOwnTraffic(): OwnTraffic {
  /** By addresses: a TLS socket may wrap a socket that is counted already. */
  const open = new Map<string, Socket>();
  let closed = 0;
  const bytesOf = (socket: Socket) => (socket.bytesRead ?? 0) + (socket.bytesWritten ?? 0);
  const add = (socket: Socket) => {
    // Decided while it is open: a closed socket no longer has an address.
    if (isLocal(socket)) return;
    const { localAddress, localPort, remoteAddress, remotePort } = socket;
    const key = `${localAddress} ${localPort} ${remoteAddress} ${remotePort}`;
    if (open.has(key)) return;
    open.set(key, socket);
    socket.once('close', () => {
      open.delete(key);
      closed += bytesOf(socket);
    });
  };
  // Published before it connects.
  const onClient = (message: unknown) => {
    const { socket } = message as { socket: Socket };
    socket.once('connect', () => add(socket));
  };
  /** Node does not publish sockets of HTTPS on the channel above. */
  const onRequest = (message: unknown) => {
    (message as { request: ClientRequest }).request.once('socket', (socket) => {
      if (socket.connecting) socket.once('connect', () => add(socket));
      else add(socket);
    });
  };
  const onAccepted = (message: unknown) => add((message as { socket: Socket }).socket);
  subscribe('net.client.socket', onClient);
  subscribe('http.client.request.start', onRequest);
  subscribe('net.server.socket', onAccepted);
  return {
    bytes() {
      let sum = closed + udpBytes();
      for (const socket of open.values()) sum += bytesOf(socket);
      return sum * overhead;
    },
    close() {
      unsubscribe('net.client.socket', onClient);
      unsubscribe('http.client.request.start', onRequest);
      unsubscribe('net.server.socket', onAccepted);
    },
  };
}

/** Connections to programs in the workspace, and Unix sockets, which have no address. */
const isLocal = ({ remoteAddress }: Socket) =>
  remoteAddress === undefined || /^(::ffff:)?127\.|^::1$/.test(remoteAddress);
