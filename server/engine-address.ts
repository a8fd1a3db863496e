import { existsSync } from 'node:fs';
import { join } from 'node:path';

/** Where a Docker engine listens, or another that speaks its API, such as Podman. */
export interface EngineAddress {
  /** `unix:///var/run/docker.sock`, `tcp://HOST:PORT` or `ssh://USER@HOST:PORT/SOCKET`, of which only the host is needed. */
  url: string;
  /** A folder with ca.pem, cert.pem and key.pem, as `DOCKER_CERT_PATH`. */
  certificates?: string | undefined;
  /** Further options of the `ssh` command. */
  sshOptions?: string[] | undefined;
}

/** Why these settings cannot be used; null: they can. */
export function engineAddressIssue({ url, certificates }: EngineAddress): string | null {
  const { protocol, hostname } = new URL(url);
  if (protocol === 'unix:' || protocol === 'ssh:') return null;
  for (const name of certificates ? ['ca.pem', 'cert.pem', 'key.pem'] : [])
    if (!existsSync(join(certificates!, name))) return `There is no ${name} in ${certificates}.`;
  const isLoopback = /^(localhost|127\.[\d.]+|\[::1\])$/.test(hostname);
  // Access to an engine is root on its machine.
  if (!certificates && !isLoopback) return `${url} is not protected by TLS.`;
  return null;
}
