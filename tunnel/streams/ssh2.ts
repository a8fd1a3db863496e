import { createSecretKey, type KeyObject } from 'node:crypto';
import type { EventEmitter } from 'node:events';
import type { Duplex } from 'node:stream';
import { isOnlyStream } from './fair-write.ts';

/**
 * Optimizations of ssh2 over a session's stream, for both ends. They rely on its internals (its version is pinned) and
 * were found by measuring (bench/ssh.ts, bench/bulk.ts).
 */

/** The agent's ciphers, cheapest first. OpenSSH supports all of them since 6.2 (2013). */
export const sshCiphers = [
  'aes128-gcm@openssh.com',
  'aes256-gcm@openssh.com',
  'aes128-ctr',
  'aes192-ctr',
  'aes256-ctr',
] as const;

/** An SSH packet of maximum size with its overhead. */
const maxBatchBytes = 40 * 1024;
/**
 * Written before other streams of the session get their turn, if there are any. With whole packets a keystroke's echo
 * during a download at 20 Mbit/s took 128 ms, with halves 101 (bench/keys.ts). Halves cost a fifth of the throughput.
 */
const sharedChunkBytes = 16 * 1024;

/**
 * Coalesces ssh2's writes of one turn. It writes each packet in two or three pieces, and each would pass through all
 * layers of the tunnel separately, waking every process on the way.
 */
export function coalesceWrites(stream: Duplex): void {
  const write = stream.write.bind(stream);
  const end = stream.end.bind(stream);
  let pieces: Uint8Array[] = [];
  let bytes = 0;
  const flush = () => {
    if (bytes === 0) return;
    const batch = pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces, bytes);
    const chunkBytes = isOnlyStream(stream) ? bytes : sharedChunkBytes;
    pieces = [];
    bytes = 0;
    if (!stream.writable) return;
    for (let at = 0; at < batch.length; at += chunkBytes) write(batch.subarray(at, at + chunkBytes));
  };
  // ssh2 passes neither encoding nor callback, and ignores the return value.
  stream.write = (piece: Uint8Array) => {
    if (bytes + piece.length > maxBatchBytes) flush();
    if (bytes === 0) process.nextTick(flush);
    pieces.push(piece);
    bytes += piece.length;
    return true;
  };
  stream.end = () => {
    flush();
    return end();
  };
}

/**
 * Converts a connection's keys to KeyObjects. ssh2 creates a cipher or MAC for each packet from raw key bytes, and
 * Node 24.21 checks whether those are a KeyObject by way of two exceptions, which take 10 of the 13 µs.
 */
export function cacheKeyObjects(connection: EventEmitter): void {
  connection.on('handshake', () => {
    const { _cipher, _decipher } = (connection as unknown as Internals)._protocol;
    for (const keys of [_cipher, _decipher])
      for (const name of ['_encKey', '_decipherKey', '_macKey'] as const) {
        const key = keys[name];
        if (Buffer.isBuffer(key)) keys[name] = createSecretKey(key);
      }
  });
}

interface Internals {
  _protocol: { _cipher: Keys; _decipher: Keys };
}

/** The key material from which ssh2 creates the cipher of each packet. */
interface Keys {
  _encKey?: Buffer | KeyObject;
  _decipherKey?: Buffer | KeyObject;
  _macKey?: Buffer | KeyObject;
}
