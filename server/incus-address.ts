import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { SettingsError } from '@cde/api/settings.ts';

/** Where an Incus server listens. */
export interface IncusAddress {
  /** `unix:///var/lib/incus/unix.socket` or `https://HOST:8443`. */
  url: string;
  /** A folder with client.crt and client.key, and server.crt unless a public authority signed the server's certificate. */
  certificates?: string | undefined;
}

/** Why these settings cannot be used; null: they can. */
export function incusAddressIssue({ url, certificates }: IncusAddress): string | null {
  if (url.startsWith('unix:')) return null;
  if (certificates === undefined) return `${url} asks for a client certificate.`;
  for (const name of ['client.crt', 'client.key'])
    if (!existsSync(join(certificates, name))) return `There is no ${name} in ${certificates}.`;
  return null;
}

/** The server that the settings name; null: no workspaces on Incus. Throws SettingsError if it cannot be used. */
export function readIncusAddress(settings: {
  incus: string;
  incusCertificates: string | undefined;
}): IncusAddress | null {
  if (settings.incus === 'off') return null;
  const address = { url: settings.incus, certificates: settings.incusCertificates };
  const issue = incusAddressIssue(address);
  if (issue === null) return address;
  throw new SettingsError(
    `CDE_INCUS cannot be used: ${issue}`,
    'Set CDE_INCUS_CERTIFICATES to a directory with client.crt, client.key and server.crt.',
  );
}
