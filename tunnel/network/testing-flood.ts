import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

/** For tests: clients that flood a WebSocket server, and a meter for what that costs the server's process. */

export const opcodes = { continuation: 0, text: 1, binary: 2, ping: 9, pong: 10 } as const;

/** A client frame with a zero mask and a payload of at most 125 bytes. */
export function clientFrame(opcode: number, payload = '', fin = true): Buffer {
  const bytes = Buffer.from(payload);
  return Buffer.concat([Buffer.from([(fin ? 0x80 : 0) | opcode, 0x80 | bytes.length, 0, 0, 0, 0]), bytes]);
}

/** Repeats a frame until it fills `bytes`. */
export const repeat = (frame: Buffer, bytes: number): Buffer =>
  Buffer.concat(Array.from({ length: Math.ceil(bytes / frame.length) }, () => frame));

export interface Flood {
  /** The server's close frame; null if it terminated the socket without one. */
  close: { code: number; reason: string } | null;
  /** How much of the flood the server read. */
  bytesRead: number;
}

/**
 * Opens a raw WebSocket to a server in this process, sends all of `frames` at once, and waits for the connection to
 * end.
 */
export async function floodSocket(
  url: string,
  headers: Record<string, string>,
  frames: Buffer,
): Promise<Flood> {
  const { hostname, port, pathname, search } = new URL(url);
  const accepted: Socket[] = [];
  const accept = (message: unknown) => accepted.push((message as { socket: Socket }).socket);
  subscribe('net.server.socket', accept);
  const socket = connect({ host: hostname, port: Number(port) });
  socket.on('error', () => {});
  const lines = Object.entries({
    host: `${hostname}:${port}`,
    connection: 'Upgrade',
    upgrade: 'websocket',
    'sec-websocket-version': '13',
    'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
    ...headers,
  }).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.write(`GET ${pathname}${search} HTTP/1.1\r\n${lines.join('')}\r\n`);
  const closed = new Promise((resolve) => socket.once('close', resolve));
  let answer = Buffer.alloc(0);
  let flooded = false;
  socket.on('data', (chunk: Buffer) => {
    answer = Buffer.concat([answer, chunk]);
    const text = answer.toString('latin1');
    if (flooded || !text.includes('\r\n\r\n')) return;
    if (!text.startsWith('HTTP/1.1 101')) return void socket.destroy();
    flooded = true;
    socket.write(frames);
  });
  await once(socket, 'connect');
  const { localPort } = socket;
  await closed;
  unsubscribe('net.server.socket', accept);
  if (!flooded) throw new Error(`The server opened no WebSocket: ${answer}`);
  const theirs = accepted.find(({ remotePort }) => remotePort === localPort);
  return { close: readClose(answer), bytesRead: theirs?.bytesRead ?? 0 };
}

/** Finds the close frame in a server's response. */
function readClose(answer: Buffer): Flood['close'] {
  let at = answer.indexOf('\r\n\r\n') + 4;
  while (at + 2 <= answer.length) {
    let length = answer[at + 1]! & 0x7f;
    let head = 2;
    if (length === 126) {
      length = answer.readUInt16BE(at + 2);
      head = 4;
    }
    if ((answer[at]! & 0x0f) === 8)
      return {
        code: answer.readUInt16BE(at + head),
        reason: answer.toString('utf8', at + head + 2, at + head + length),
      };
    at += head + length;
  }
  return null;
}

/** How long `measureWork` takes on an idle machine. */
const usualWorkMs = 6;

/** The CPU time of work of a fixed size, of the kind that floods cause: XOR over bytes, as frames are unmasked. */
function measureWork(): number {
  const bytes = new Uint8Array(8 * 1024 * 1024);
  const before = process.threadCpuUsage();
  for (let at = 0; at < bytes.length; at += 1) bytes[at]! ^= at & 0xff;
  const { user, system } = process.threadCpuUsage(before);
  return (user + system) / 1000;
}

/**
 * Measures how long the event loop is blocked, in CPU time of this thread, which a busy machine does not change as it
 * changes wall-clock time. It still grows there, because cores and caches are shared, and on a slow machine. So the result
 * is divided by how much longer than usual work of a fixed size took just before and after.
 */
export function watchLoop(): { stop(): { maxBlockedMs: number } } {
  // The first is not compiled yet.
  measureWork();
  const works = [measureWork(), measureWork()];
  let max = 0;
  let before = process.threadCpuUsage();
  let next = setImmediate(turn);
  function turn(): void {
    const { user, system } = process.threadCpuUsage(before);
    max = Math.max(max, (user + system) / 1000);
    before = process.threadCpuUsage();
    next = setImmediate(turn);
  }
  return {
    stop() {
      turn();
      clearImmediate(next);
      works.push(measureWork(), measureWork());
      const workMs = works.reduce((sum, ms) => sum + ms, 0) / works.length;
      return { maxBlockedMs: max / Math.max(1, workMs / usualWorkMs) };
    },
  };
}
