import { readFileSync } from 'node:fs';
import type { Agent } from 'node:http';
import { join } from 'node:path';
import type Dockerode from 'dockerode';
import type { EngineAddress } from '../../engine-address.ts';
import { makeSshAgent, sshErrorCode } from './ssh.ts';

/** A call that has no answer after this long has failed. Streams of progress and events are never silent for as long. */
const callTimeoutMs = 60_000;

export interface EngineConnection {
  /** The client for calls, which fail after a minute of silence. */
  calls(): Promise<Dockerode>;
  /** The client for streams of events, which can be silent for as long as they want. */
  streams(): Promise<Dockerode>;
  close(): void;
}

/** Clients of the engine, made when they are needed: dockerode takes 200 ms to load. Both use the same SSH connections. */
export function connectEngine(address: EngineAddress): EngineConnection {
  const agent = address.url.startsWith('ssh:') ? makeSshAgent(address) : undefined;
  let client: Promise<Dockerode> | undefined;
  return {
    calls() {
      client ??= makeClient(address, callTimeoutMs, agent).catch((error) => {
        client = undefined;
        throw error;
      });
      return client;
    },
    streams: () => makeClient(address, 0, agent),
    close: () => agent?.destroy(),
  };
}

async function makeClient(
  { url, certificates }: EngineAddress,
  timeout: number,
  sshAgent: Agent | undefined,
): Promise<Dockerode> {
  const { default: Docker } = await import('dockerode');
  const { protocol, hostname, port, pathname } = new URL(url);
  // Everything is said, because docker-modem fills in what is not from DOCKER_HOST and its like.
  const unset = { host: undefined, port: undefined, ca: undefined, cert: undefined, key: undefined };
  const own = { ...unset, protocol: 'http', pathPrefix: '/', timeout } as const;
  if (protocol === 'unix:') return new Docker({ ...own, socketPath: pathname });
  if (sshAgent) return new Docker({ ...own, host: 'docker', agent: sshAgent } as Dockerode.DockerOptions);
  const read = (name: string) => readFileSync(join(certificates!, name));
  return new Docker({
    ...own,
    host: hostname,
    port,
    ...(certificates && {
      protocol: 'https',
      ca: read('ca.pem'),
      cert: read('cert.pem'),
      key: read('key.pem'),
    }),
  });
}

/** The HTTP status of an error of the engine; undefined if it did not answer. */
export function statusOf(error: unknown): number | undefined {
  const { statusCode } = error as { statusCode?: number };
  // Podman's answer if something goes while a call is about it.
  return statusCode === 500 && /no such (container|volume|network|image)\b/i.test(messageOf(error))
    ? 404
    : statusCode;
}

/** What the engine said, without the prefix of its client. */
export function messageOf(error: unknown): string {
  const { json, message } = error as { json?: { message?: unknown }; message?: string };
  if (typeof json?.message === 'string') return json.message.trim();
  return (message ?? String(error)).replace(/^\(HTTP code \d+\) [^-]*- /, '').trim();
}

const networkErrors =
  /^(ECONN\w+|ENOENT|EACCES|EPERM|EPIPE|EPROTO|ETIMEDOUT|ENOTFOUND|EAI_AGAIN|EHOST\w+|ENET\w+|ERR_TLS_\w+|ERR_SSL_\w+|CERT_\w+|UNABLE_TO_\w+|\w*SELF_SIGNED_CERT\w*)$/;

/** Whether the engine gave no answer, so that nothing is known. */
export function isUnreachable(error: unknown): boolean {
  if (statusOf(error) !== undefined) return false;
  const { code, message } = error as { code?: string; message?: string };
  return (
    code === sshErrorCode || networkErrors.test(code ?? '') || /socket hang up|timeout/i.test(message ?? '')
  );
}

/** The result, or null if what is asked for does not exist. */
export async function orNull<T>(call: Promise<T>): Promise<T | null> {
  try {
    return await call;
  } catch (error) {
    if (statusOf(error) === 404) return null;
    throw error;
  }
}

/** Waits for a call; an answer with one of these statuses is as good. 404: not there; 304: so already; 409: taken. */
export async function accept(call: Promise<unknown>, ...statuses: number[]): Promise<void> {
  try {
    await call;
  } catch (error) {
    if (!statuses.includes(statusOf(error) ?? 0)) throw error;
  }
}

/** What answers, with its version: `Docker 28.2.2`, `Podman 4.3.1`. */
export async function versionOf(engine: Dockerode): Promise<string> {
  const { Version, Components = [] } = (await engine.version()) as {
    Version: string;
    Components?: { Name: string }[];
  };
  return `${Components.some(({ Name }) => /podman/i.test(Name)) ? 'Podman' : 'Docker'} ${Version}`;
}

export const isPodman = (version: string) => version.startsWith('Podman');
