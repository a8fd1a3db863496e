import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type Dockerode from 'dockerode';
import type { EngineAddress } from '../../engine-address.ts';

/** A call that has no answer after this long has failed. Streams of progress and events are never silent for as long. */
const callTimeoutMs = 60_000;

/** A client of the engine. Connects with each call. Loads dockerode, which takes 200 ms. */
export async function makeEngine(
  { url, certificates }: EngineAddress,
  { timeoutMs = callTimeoutMs }: { timeoutMs?: number } = {},
): Promise<Dockerode> {
  const { default: Docker } = await import('dockerode');
  const { protocol, hostname, port, pathname } = new URL(url);
  if (protocol === 'unix:') return new Docker({ socketPath: pathname, timeout: timeoutMs });
  const read = (name: string) => readFileSync(join(certificates!, name));
  return new Docker({
    host: hostname,
    port,
    timeout: timeoutMs,
    ...(certificates
      ? { protocol: 'https', ca: read('ca.pem'), cert: read('cert.pem'), key: read('key.pem') }
      : { protocol: 'http' }),
  });
}

/** The HTTP status of an error of the engine; undefined if it did not answer. */
export const statusOf = (error: unknown): number | undefined => (error as { statusCode?: number }).statusCode;

/** What the engine said, without the prefix of its client. */
export function messageOf(error: unknown): string {
  const { json, message } = error as { json?: { message?: unknown }; message?: string };
  if (typeof json?.message === 'string') return json.message.trim();
  return (message ?? String(error)).replace(/^\(HTTP code \d+\) [^-]*- /, '').trim();
}

const networkErrors =
  /^(ECONN\w+|ENOENT|EACCES|EPERM|EPIPE|ETIMEDOUT|ENOTFOUND|EAI_AGAIN|EHOST\w+|ENET\w+|ERR_TLS_\w+|CERT_\w+)$/;

/** Whether the engine gave no answer, so that nothing is known. */
export function isUnreachable(error: unknown): boolean {
  if (statusOf(error) !== undefined) return false;
  const { code, message } = error as { code?: string; message?: string };
  return networkErrors.test(code ?? '') || /socket hang up|timeout/i.test(message ?? '');
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
