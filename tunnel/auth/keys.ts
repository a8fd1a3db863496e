import { createHash, createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto';

/** SHA-256 of a SubjectPublicKeyInfo (DER), base64url without padding: how keys are named everywhere. */
export function fingerprint(spki: Uint8Array | KeyObject): string {
  return createHash('sha256')
    .update(spki instanceof Uint8Array ? spki : spki.export({ type: 'spki', format: 'der' }))
    .digest('base64url');
}

/** A key's SubjectPublicKeyInfo (DER), base64url; of a private key, that of its public half. */
export function exportPublicKey(key: KeyObject): string {
  const publicKey = key.type === 'private' ? createPublicKey(key) : key;
  return publicKey.export({ type: 'spki', format: 'der' }).toString('base64url');
}

/** Reads a public key written by exportPublicKey; throws where it is not one. */
export function importPublicKey(spki: string): KeyObject {
  return createPublicKey({ key: Buffer.from(spki, 'base64url'), type: 'spki', format: 'der' });
}

/** A fresh Ed25519 key of one client, for one or more sessions: `publicKey` goes into `createTicket`'s body. */
export function makeClientKey(): { privateKey: KeyObject; publicKey: string } {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519');
  return { privateKey, publicKey: exportPublicKey(publicKey) };
}
