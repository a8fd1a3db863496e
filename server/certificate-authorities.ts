import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { z } from 'zod';

/** Agents get them in an environment variable, which Linux limits to 128 KiB. */
const maxBytes = 100_000;

/** The setting of a PEM file with certificate authorities, read at the start. */
export const CertificateAuthorities = z.string().transform((path, context) => {
  const reject = (message: string) => {
    context.addIssue({ code: 'custom', message });
    return z.NEVER;
  };
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    return reject(`the file cannot be read (${(error as NodeJS.ErrnoException).code})`);
  }
  const found = text.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  if (found.length === 0) return reject('the file contains no certificate in PEM');
  // Without what bundles have between the certificates.
  const pem = `${found.join('\n')}\n`;
  if (pem.length > maxBytes)
    return reject(`its certificates are ${pem.length} bytes, and agents take at most ${maxBytes}`);
  for (const certificate of found) {
    try {
      new X509Certificate(certificate);
    } catch {
      return reject('the file contains an invalid certificate');
    }
  }
  return pem;
});
