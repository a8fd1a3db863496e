import { createSocket, type Socket } from 'node:dgram';
import { lookup } from 'node:dns/promises';
import { isIP } from 'node:net';
import { Duplex } from 'node:stream';
import { TunnelError } from '../errors.ts';

/** Buffered data in a stream beyond which datagrams are dropped, as a router would. */
export const maxWaitingBytes = 256 * 1024;
/** Sends that the kernel has not accepted yet, beyond which datagrams are dropped. */
const maxPendingSends = 256;
/** A flow that is silent for this long has ended, as far as we can know. */
const idleTimeoutMs = 15 * 60_000;

/** Frames a datagram of at most 65,535 bytes for a stream: its length in two bytes, then the data. */
export function frameDatagram(data: Uint8Array): Buffer {
  const frame = Buffer.allocUnsafe(2 + data.length);
  frame.writeUInt16BE(data.length);
  frame.set(data, 2);
  return frame;
}

/** Splits a stream's chunks into datagrams. Their buffers are not reused. */
export function makeDatagramReader(onDatagram: (data: Buffer) => void): (chunk: Buffer) => void {
  let rest: Buffer = Buffer.alloc(0);
  return (chunk) => {
    let all = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    while (all.length >= 2) {
      const end = 2 + all.readUInt16BE();
      if (all.length < end) break;
      onDatagram(all.subarray(2, end));
      all = all.subarray(end);
    }
    rest = all;
  };
}

/** Writes a datagram, or drops it and returns false if too much is buffered. */
export function sendDatagram(stream: Duplex, data: Uint8Array): boolean {
  if (stream.writableLength + data.length > maxWaitingBytes || !stream.writable) return false;
  stream.write(frameDatagram(data));
  return true;
}

/**
 * A connected UDP socket as a Duplex of framed datagrams. UDP has no handshake, so it opens once the host name is
 * resolved; rejects with `target-…`. It closes itself after 15 minutes without a datagram.
 */
export async function connectDatagrams(host: string, port: number): Promise<Duplex> {
  const where = `${host} port ${port} (UDP)`;
  const { address, family } = await find(host, where);
  const socket = createSocket(family === 6 ? 'udp6' : 'udp4');
  await new Promise<void>((resolve, reject) => {
    socket.once('error', (error) =>
      reject(new TunnelError('target-unreachable', `${where}: ${error.message}`)),
    );
    socket.connect(port, address, resolve);
  }).catch((error) => {
    socket.close();
    throw error;
  });
  return overSocket(socket);
}

async function find(host: string, where: string): Promise<{ address: string; family: number }> {
  // Most programs listen on IPv4 at least, and UDP does not report a missing listener.
  if (host === 'localhost') return { address: '127.0.0.1', family: 4 };
  if (isIP(host)) return { address: host, family: isIP(host) };
  try {
    return await lookup(host);
  } catch {
    throw new TunnelError('target-not-found', where);
  }
}

function overSocket(socket: Socket): Duplex {
  let sends = 0;
  /** False while the stream's reader does not keep up. */
  let flowing = true;
  const abandon = setTimeout(() => stream.destroy(), idleTimeoutMs);
  abandon.unref();
  const read = makeDatagramReader((data) => {
    if (sends >= maxPendingSends) return;
    sends += 1;
    // Errors are ignored, as senders of UDP do not learn of them. None is too long on Linux: clients report what exceeds
    // 65,507 bytes themselves, and the kernel fragments the rest. macOS sends at most 9,216 (net.inet.udp.maxdgram).
    socket.send(data, () => {
      sends -= 1;
    });
  });
  const stream = new Duplex({
    readableHighWaterMark: maxWaitingBytes,
    read() {
      flowing = true;
    },
    write(chunk: Buffer, _encoding, done) {
      abandon.refresh();
      read(chunk);
      done();
    },
    final(done) {
      stream.push(null);
      done();
    },
    destroy(error, done) {
      clearTimeout(abandon);
      socket.close();
      done(error);
    },
  });
  socket.on('message', (data) => {
    abandon.refresh();
    if (flowing && !stream.readableEnded && !stream.destroyed) flowing = stream.push(frameDatagram(data));
  });
  // A port without a listener returns an error; the next datagram may succeed.
  socket.on('error', () => {});
  return stream;
}
