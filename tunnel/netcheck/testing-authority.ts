import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface Authority {
  /** PEM. */
  cert: string;
  /** A certificate for 127.0.0.1 and localhost. */
  issue(): { key: string; cert: string };
}

/** For tests: a certificate authority, made by OpenSSL. */
export function makeAuthority(name: string): Authority {
  const folder = mkdtempSync(join(tmpdir(), 'cde-ca-'));
  const file = (part: string) => join(folder, part);
  const openssl = (...words: string[]) => execFileSync('openssl', words, { stdio: 'pipe' });
  const newKey = (part: string) =>
    openssl('genpkey', '-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256', '-out', file(part));
  try {
    newKey('ca.key');
    openssl(
      ...['req', '-x509', '-new', '-key', file('ca.key'), '-subj', `/O=${name}/CN=${name} Root`],
      ...['-days', '30', '-addext', 'keyUsage=critical,keyCertSign', '-out', file('ca.crt')],
    );
    newKey('leaf.key');
    writeFileSync(file('leaf.ext'), 'subjectAltName=IP:127.0.0.1,DNS:localhost');
    openssl('req', '-new', '-key', file('leaf.key'), '-subj', '/CN=127.0.0.1', '-out', file('leaf.csr'));
    openssl(
      ...['x509', '-req', '-in', file('leaf.csr'), '-CA', file('ca.crt'), '-CAkey', file('ca.key')],
      ...['-CAcreateserial', '-days', '30', '-extfile', file('leaf.ext'), '-out', file('leaf.crt')],
    );
    const read = (part: string) => readFileSync(file(part), 'utf8');
    const leaf = { key: read('leaf.key'), cert: read('leaf.crt') };
    return { cert: read('ca.crt'), issue: () => leaf };
  } finally {
    rmSync(folder, { recursive: true });
  }
}
