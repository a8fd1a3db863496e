import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  randomUUID,
} from 'node:crypto';
import { chmod, link, mkdir, readFile, unlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';

export interface HostKey {
  /** In OpenSSH format, for the SSH server. */
  privateKey: string;
  /** One line, for `known_hosts`: `ssh-ed25519 AAAA…`. */
  publicKey: string;
}

/** The key's path: in the home, so that it survives restarts and image changes. */
export function hostKeyPath(home: string): string {
  return join(home, '.local/state/cde/ssh_host_ed25519_key');
}

/**
 * Reads the workspace's host key, or creates one if it is missing or unreadable. If it cannot be stored (full or read-only
 * file system) the agent still starts, with a key that lasts as long as the process.
 */
export async function readHostKey(path: string): Promise<HostKey> {
  const existing = await readFile(path, 'utf8').catch(() => undefined);
  const kept = existing === undefined ? undefined : parse(existing);
  if (kept) return kept;
  const made = format(generateKeyPairSync('ed25519').privateKey);
  try {
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    // Linked into place atomically: two agents that start at once both use the first one's key.
    const draft = `${path}.${randomUUID()}`;
    // Flushed, so that a power failure leaves a whole key or none.
    await writeFile(draft, made.privateKey, { mode: 0o600, flush: true });
    await chmod(draft, 0o600);
    if (existing !== undefined) await unlink(path).catch(() => {});
    try {
      await link(draft, path);
    } catch {
      return parse(await readFile(path, 'utf8')) ?? made;
    } finally {
      await unlink(draft);
    }
  } catch {
    // It cannot be stored.
  }
  return made;
}

/*
 * The file has OpenSSH's format (PROTOCOL.key), which ssh2 and ssh-keygen read. Written here because loading ssh2 would
 * delay the agent's registration.
 */

const magic = 'openssh-key-v1\0';
const type = 'ssh-ed25519';
const head = '-----BEGIN OPENSSH PRIVATE KEY-----';
const foot = '-----END OPENSSH PRIVATE KEY-----';

function text(value: string | Buffer): Buffer {
  const bytes = Buffer.from(value as string);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  return Buffer.concat([length, bytes]);
}

function format(key: KeyObject): HostKey {
  const { d, x } = key.export({ format: 'jwk' });
  const publicPart = Buffer.from(x!, 'base64url');
  const seed = Buffer.from(d!, 'base64url');
  const publicBlob = Buffer.concat([text(type), text(publicPart)]);
  // Two equal check numbers, by which readers verify decryption; nothing is encrypted here.
  const check = Buffer.alloc(8);
  let secret = Buffer.concat([
    check,
    publicBlob,
    text(Buffer.concat([seed, publicPart])),
    text('cde workspace'),
  ]);
  for (let pad = 1; secret.length % 8 !== 0; pad += 1) secret = Buffer.concat([secret, Buffer.of(pad)]);
  const one = Buffer.from([0, 0, 0, 1]);
  const blob = Buffer.concat([
    Buffer.from(magic),
    text('none'),
    text('none'),
    text(''),
    one,
    text(publicBlob),
    text(secret),
  ]);
  const lines = blob.toString('base64').match(/.{1,70}/g)!;
  return {
    privateKey: [head, ...lines, foot, ''].join('\n'),
    publicKey: `${type} ${publicBlob.toString('base64')}`,
  };
}

/** Parses a key written by `format`, or by ssh-keygen without a passphrase; undefined for anything else. */
function parse(file: string): HostKey | undefined {
  const body = file.trim();
  if (!body.startsWith(head) || !body.endsWith(foot)) return undefined;
  const blob = Buffer.from(body.slice(head.length, -foot.length), 'base64');
  // After "none", "none", "" and the number of keys comes the public key, which is also in the private part.
  const start = Buffer.concat([
    Buffer.from(magic),
    text('none'),
    text('none'),
    text(''),
    Buffer.from([0, 0, 0, 1]),
  ]);
  if (!blob.subarray(0, start.length).equals(start)) return undefined;
  const keyLength = 4 + type.length + 4 + 32;
  const publicBlob = blob.subarray(start.length + 4, start.length + 4 + keyLength);
  if (!publicBlob.subarray(0, 4 + type.length).equals(text(type))) return undefined;
  const publicPart = publicBlob.subarray(-32);
  // The private key follows its length, the check numbers, the public key and a length.
  const at = start.length + 4 + keyLength + 4 + 8 + keyLength + 4;
  const seed = blob.subarray(at, at + 32);
  if (seed.length !== 32 || !isPair(seed, publicPart)) return undefined;
  return { privateKey: file, publicKey: `${type} ${publicBlob.toString('base64')}` };
}

function isPair(seed: Buffer, publicPart: Buffer): boolean {
  try {
    const jwk = {
      kty: 'OKP',
      crv: 'Ed25519',
      d: seed.toString('base64url'),
      x: publicPart.toString('base64url'),
    };
    const derived = createPublicKey(createPrivateKey({ key: jwk, format: 'jwk' })).export({ format: 'jwk' });
    return derived.x === jwk.x;
  } catch {
    return false;
  }
}
