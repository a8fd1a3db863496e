import { readFileSync, statSync } from 'node:fs';
import type { Server as HttpsServer } from 'node:https';
import type { FastifyInstance } from 'fastify';

export interface CertificateFiles {
  tlsCert?: string | undefined;
  tlsKey?: string | undefined;
}

/** Certificates are renewed weeks before they expire, so this need not be quick. */
const checkIntervalMs = 60_000;

/** The certificate of the settings; undefined to serve plain HTTP. Throws if the files cannot be read. */
export function readCertificate({ tlsCert, tlsKey }: CertificateFiles) {
  return tlsCert && tlsKey ? { cert: readFileSync(tlsCert), key: readFileSync(tlsKey) } : undefined;
}

/** Applies a certificate that was renewed on disk without a restart. Returns a function that stops watching. */
export function watchCertificate(app: FastifyInstance, { tlsCert, tlsKey }: CertificateFiles): () => void {
  if (!tlsCert || !tlsKey) return () => {};
  const stamp = () => `${statSync(tlsCert).mtimeMs} ${statSync(tlsKey).mtimeMs}`;
  let last = stamp();
  const timer = setInterval(() => {
    try {
      const now = stamp();
      if (now === last) return;
      (app.server as unknown as HttpsServer).setSecureContext(readCertificate({ tlsCert, tlsKey })!);
      last = now;
      app.log.info('reloaded the TLS certificate');
    } catch (error) {
      // The files may be half written; the next check reads them again.
      app.log.warn({ why: (error as Error).message }, 'cannot load the renewed TLS certificate');
    }
  }, checkIntervalMs);
  return () => clearInterval(timer);
}
