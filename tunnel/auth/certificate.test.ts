import { X509Certificate } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { makeCertificate } from './certificate.ts';
import { exportPublicKey, fingerprint, importPublicKey, makeClientKey } from './keys.ts';

describe("the agent's certificate", () => {
  it('is well-formed, signed by its own key, never expires and differs each time', async () => {
    const { cert, key, fingerprint: named } = await makeCertificate();
    const read = new X509Certificate(cert);
    expect(read.verify(read.publicKey)).toBe(true);
    expect(read.checkIssued(read)).toBe(true);
    expect(new Date(read.validTo).getUTCFullYear()).toBe(9999);
    expect(fingerprint(read.publicKey)).toBe(named);
    expect(key).toMatch(/^-----BEGIN PRIVATE KEY-----/);
    const other = await makeCertificate();
    expect(other.fingerprint).not.toBe(named);
    expect(new X509Certificate(other.cert).serialNumber).not.toBe(read.serialNumber);
  });
});

describe('keys', () => {
  it('are the same after a journey as text', () => {
    const { privateKey, publicKey } = makeClientKey();
    expect(exportPublicKey(privateKey)).toBe(publicKey);
    expect(exportPublicKey(importPublicKey(publicKey))).toBe(publicKey);
    expect(fingerprint(Buffer.from(publicKey, 'base64url'))).toBe(fingerprint(importPublicKey(publicKey)));
    expect(() => importPublicKey('bm90IGEga2V5')).toThrow();
  });
});
