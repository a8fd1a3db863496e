import { generateKeyPairSync, randomBytes, sign, X509Certificate } from 'node:crypto';
import { fingerprint } from './keys.ts';

/**
 * The agent's TLS certificate: self-signed, Ed25519, without expiry, because clients only look at its key, which they
 * pin by fingerprint. Created at each start of an agent; the key never leaves memory. The ASN.1 library is loaded on
 * demand, because only agents need it.
 */
export async function makeCertificate(): Promise<{ key: string; cert: string; fingerprint: string }> {
  const asn1 = await import('asn1js');
  const { privateKey, publicKey } = generateKeyPairSync('ed25519');
  const spki = publicKey.export({ type: 'spki', format: 'der' });
  const sequence = (...value: InstanceType<typeof asn1.BaseBlock>[]) => new asn1.Sequence({ value });
  const algorithm = sequence(new asn1.ObjectIdentifier({ value: '1.3.101.112' })); // Ed25519, RFC 8410
  const name = sequence(
    new asn1.Set({
      value: [
        sequence(
          new asn1.ObjectIdentifier({ value: '2.5.4.3' }),
          new asn1.Utf8String({ value: 'cde agent' }),
        ),
      ],
    }),
  );
  const serial = randomBytes(16);
  serial[0] = (serial[0]! & 0x7f) | 0x40; // positive, and no leading zero
  const body = sequence(
    new asn1.Constructed({
      idBlock: { tagClass: 3, tagNumber: 0 },
      value: [new asn1.Integer({ value: 2 })], // X.509 version 3
    }),
    new asn1.Integer({ valueHex: new Uint8Array(serial).buffer }),
    algorithm,
    name,
    sequence(
      new asn1.GeneralizedTime({ valueDate: new Date('1970-01-01T00:00:00Z') }),
      new asn1.GeneralizedTime({ valueDate: new Date('9999-12-31T23:59:59Z') }), // RFC 5280: no expiry
    ),
    name,
    asn1.fromBER(new Uint8Array(spki).buffer).result,
  );
  const signature = sign(null, Buffer.from(body.toBER()), privateKey);
  const certificate = new X509Certificate(
    Buffer.from(
      sequence(body, algorithm, new asn1.BitString({ valueHex: new Uint8Array(signature).buffer })).toBER(),
    ),
  );
  return {
    key: privateKey.export({ type: 'pkcs8', format: 'pem' }) as string,
    cert: certificate.toString(),
    fingerprint: fingerprint(publicKey),
  };
}
