import { createHash, createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto';

/** The fingerprint that identifies a key everywhere: SHA-256 of its SubjectPublicKeyInfo (DER), base64url. */
export function fingerprint(spki: Uint8Array | KeyObject): string {
  return createHash('sha256')
    .update(spki instanceof Uint8Array ? spki : spki.export({ type: 'spki', format: 'der' }))
    .digest('base64url');
}

/** A key's SubjectPublicKeyInfo (DER), base64url. For a private key, that of its public key. */
export function exportPublicKey(key: KeyObject): string {
  const publicKey = key.type === 'private' ? createPublicKey(key) : key;
  return publicKey.export({ type: 'spki', format: 'der' }).toString('base64url');
}

/** Reads the output of exportPublicKey; throws if it is not a key. */
export function importPublicKey(spki: string): KeyObject {
  return createPublicKey({ key: Buffer.from(spki, 'base64url'), type: 'spki', format: 'der' });
}

/** Generates a client's Ed25519 key for one or more sessions; `publicKey` goes into `createTicket`'s body. */
export function makeClientKey(): { privateKey: KeyObject; publicKey: string } {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519');
  return { privateKey, publicKey: exportPublicKey(publicKey) };
}
