import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { isIPv6 } from 'node:net';
import type { Duplex } from 'node:stream';
import { makeDatagramReader, sendDatagram } from '@cde/tunnel/streams/datagrams.ts';
import { Failure } from '../../failure/failure.ts';
import type { Sessions } from '../sessions.ts';
import type { PortSpec } from './port-specs.ts';

/** How long a silent sender is remembered. NATs keep UDP mappings no longer (RFC 4787 asks for two minutes). */
const idleMs = 120_000;
const idleCheckMs = 5_000;
/** Concurrent senders; beyond this, the one that has been silent longest is forgotten. */
const maxFlows = 256;
/** Datagrams that wait while a stream is being opened. */
const maxQueuedDatagrams = 64;

/** The longest datagram of IPv4 (65,535 bytes less the headers of IP and UDP). */
const maxDatagramBytes = 65_507;

/** UDP cannot report an error to the sender, so it is printed. */
const tooLong = (bytes: number, receiver: string) =>
  new Failure(
    'datagram-too-long',
    `A datagram of ${bytes} bytes is too long for the ${receiver}; it was dropped, as others like it will be.`,
  );

/** One sender's datagrams: a stream of its own, so that answers find the way back. */
interface Flow {
  stream: Duplex | null;
  waiting: Buffer[];
  lastAt: number;
}

/**
 * Listens for datagrams and carries them to a UDP port of the workspace, those of each sender in a stream of their
 * own. Where too many wait they are dropped. `onFailure` hears why a stream could not be opened.
 */
export async function listenUdp(
  spec: PortSpec,
  address: string,
  sessions: Pick<Sessions, 'get'>,
  onFailure: (error: unknown) => void,
): Promise<{ port: number; close(): void }> {
  const socket = createSocket(isIPv6(address) ? 'udp6' : 'udp4');
  socket.bind(spec.local, address);
  // `once` rejects with what `bind` reports.
  await once(socket, 'listening');
  socket.on('error', () => {});
  const flows = new Map<string, Flow>();

  const forget = (key: string, flow: Flow) => {
    if (flows.get(key) === flow) flows.delete(key);
    flow.stream?.destroy();
  };
  const timer = setInterval(() => {
    const before = performance.now() - idleMs;
    for (const [key, flow] of flows) if (flow.lastAt < before) forget(key, flow);
  }, idleCheckMs);
  timer.unref();

  async function carry(key: string, flow: Flow, port: number, host: string): Promise<void> {
    try {
      const session = await sessions.get();
      const stream = await session.open({ kind: 'udp', host: spec.host, port: spec.remote });
      stream.on('error', () => {});
      if (flows.get(key) !== flow) return void stream.destroy();
      flow.stream = stream;
      stream.once('close', () => forget(key, flow));
      stream.on(
        'data',
        makeDatagramReader((data) => {
          flow.lastAt = performance.now();
          sendBack(socket, data, port, host, onFailure);
        }),
      );
      for (const data of flow.waiting.splice(0)) sendDatagram(stream, data);
    } catch (error) {
      forget(key, flow);
      onFailure(error);
    }
  }

  socket.on('message', (data, from) => {
    // IPv6 takes a little more than IPv4, which most programs in a workspace listen on.
    if (data.length > maxDatagramBytes) return onFailure(tooLong(data.length, 'workspace'));
    const key = `${from.port} ${from.address}`;
    let flow = flows.get(key);
    if (!flow) {
      if (flows.size >= maxFlows) {
        const [oldest] = [...flows].sort(([, one], [, other]) => one.lastAt - other.lastAt);
        forget(...oldest!);
      }
      flow = { stream: null, waiting: [], lastAt: 0 };
      flows.set(key, flow);
      void carry(key, flow, from.port, from.address);
    }
    flow.lastAt = performance.now();
    if (flow.stream) sendDatagram(flow.stream, data);
    else if (flow.waiting.length < maxQueuedDatagrams) flow.waiting.push(data);
  });

  return {
    port: socket.address().port,
    close() {
      clearInterval(timer);
      socket.close();
      for (const [key, flow] of flows) forget(key, flow);
    },
  };
}

function sendBack(
  socket: Socket,
  data: Buffer,
  port: number,
  host: string,
  onFailure: (error: unknown) => void,
): void {
  try {
    socket.send(data, port, host, (error) => {
      if ((error as NodeJS.ErrnoException | null)?.code === 'EMSGSIZE')
        onFailure(tooLong(data.length, 'program here'));
    });
  } catch {
    // It was closed in the meantime.
  }
}
