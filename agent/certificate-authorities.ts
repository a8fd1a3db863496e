import { getCACertificates, setDefaultCACertificates } from 'node:tls';

/** Trusts certificate authorities beside Node's for every connection of this process: an installation's own, in PEM. */
export function trustCertificateAuthorities(pem: string | undefined): void {
  const added = pem?.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  if (added.length > 0) setDefaultCACertificates([...getCACertificates('default'), ...added]);
}
