import { createSecretKey, type KeyObject } from 'node:crypto';
import type { EventEmitter } from 'node:events';
import type { Duplex } from 'node:stream';
import { isOnlyStream } from './fair-write.ts';

/**
 * What lets ssh2 be quick over a stream of a session, at either end: past its public interface, and found by measuring
 * (bench/ssh.ts, bench/bulk.ts). ssh2 is pinned to an exact version.
 */

/** The agent's ciphers, by what they cost. OpenSSH has all of them since 6.2 (2013). */
export const sshCiphers = [
  'aes128-gcm@openssh.com',
  'aes256-gcm@openssh.com',
  'aes128-ctr',
  'aes192-ctr',
  'aes256-ctr',
] as const;

/** A packet of SSH's with all that belongs to it. */
const maxBatchBytes = 40 * 1024;
/**
 * What is written before other streams of the session, where there are any, have their turn: with whole packets a key's
 * echo during a download on a line of 20 Mbit/s took 128 ms, with halves 101 (bench/keys.ts). Halves cost a fifth of the
 * throughput.
 */
const sharedChunkBytes = 16 * 1024;

/**
 * Writes what ssh2 writes in one turn as one: it writes each packet in two or three pieces, and each would cross all
 * layers of the tunnel by itself, and wake every process on the way.
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
  // ssh2 gives neither an encoding nor a callback, and does not look at what comes back.
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
 * Keeps the keys of a connection as KeyObjects. ssh2 makes a cipher, or a MAC, for each packet from a key's bytes, and
 * Node 24.21 asks of bytes whether they are a KeyObject by way of two exceptions: 10 µs of the 13 that it takes.
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

/** What a cipher keeps to key each packet anew. */
interface Keys {
  _encKey?: Buffer | KeyObject;
  _decipherKey?: Buffer | KeyObject;
  _macKey?: Buffer | KeyObject;
}
