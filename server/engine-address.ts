import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { isLoopbackHost } from '@cde/api/addresses.ts';
import { SettingsError } from '@cde/api/settings.ts';

export const engineUrlPattern =
  /^(unix:\/\/\/.+|tcp:\/\/[^/@]+:\d{1,5}|ssh:\/\/(\w[\w.-]*@)?(\w[\w.-]*|\[[\da-f:]+\])(:\d{1,5})?(\/[\w./-]*)?)$/;
const defaultSocket = '/var/run/docker.sock';

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
  // Access to an engine is root on its machine.
  if (!certificates && !isLoopbackHost(hostname)) return `${url} is not protected by TLS.`;
  return null;
}

/** The engine that the settings name; null: no workspaces on Docker. Throws SettingsError if it cannot be used safely. */
export function readEngineAddress(
  settings: { docker: string; dockerCertificates: string | undefined },
  env: NodeJS.ProcessEnv,
  { loopback, accessUrl }: { loopback: boolean; accessUrl: string },
): EngineAddress | null {
  const { docker, dockerCertificates } = settings;
  if (docker === 'off') return null;
  if (docker !== 'auto') {
    const address = { url: docker, certificates: dockerCertificates };
    const issue = engineAddressIssue(address);
    if (issue !== null)
      throw new SettingsError(
        `CDE_DOCKER cannot be used: ${issue}`,
        'Access to a Docker engine is root on its machine. Use a Unix socket, SSH, or TLS with CDE_DOCKER_CERTIFICATES.',
      );
    if (!docker.startsWith('unix:') && isLoopbackHost(new URL(accessUrl).hostname))
      throw new SettingsError(
        `CDE_DOCKER is ${docker}, whose containers cannot reach this server at ${accessUrl}.`,
        'Set CDE_ACCESS_URL to an address that they can reach, and CDE_LISTEN so that the server listens there.',
      );
    return address;
  }
  if (!loopback) return null;
  // As the docker command finds it. One that is remote, or cannot be used safely, is ignored.
  const url = env.DOCKER_HOST || `unix://${defaultSocket}`;
  if (!engineUrlPattern.test(url) || url.startsWith('ssh:')) return null;
  const address = { url, certificates: dockerCertificates ?? env.DOCKER_CERT_PATH };
  if (url.startsWith('unix:') && !existsSync(new URL(url).pathname)) return null;
  return engineAddressIssue(address) === null ? address : null;
}
