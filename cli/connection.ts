import { type Client, makeClient } from '@cde/api/client.ts';
import { type Login, readConfig, serverUrl } from './config.ts';
import { exitCodes } from './exit-codes.ts';
import { Failure } from './failure.ts';
import { retryingFetch } from './retry.ts';
import type { Reply } from './send.ts';

/** Where a server listens that was started without settings. */
export const localUrl = 'http://127.0.0.1:7080';

/** How long a command waits for a server that does not answer: a blink of the network, not a restart. */
export const defaultPatienceMs = 1_500;

/**
 * Which server, and by what right: `--url`, then `CDE_URL`, then the current login. The token is `CDE_TOKEN`,
 * or the login's of that server.
 */
export function chooseServer(
  env: NodeJS.ProcessEnv,
  url: string | undefined,
): { url: string; token: string | undefined; login: Login | undefined } {
  const config = readConfig(env);
  const named = url ?? (env.CDE_URL || undefined);
  const chosen = named === undefined ? config.current : serverUrl(named);
  if (chosen === null)
    throw new Failure('no-server', 'No server is chosen.', {
      exitCode: exitCodes.permission,
      hint: 'Run: cde login https://your-server  (or set CDE_URL and CDE_TOKEN)',
    });
  const login = Object.hasOwn(config.servers, chosen) ? config.servers[chosen] : undefined;
  return { url: chosen, token: env.CDE_TOKEN || login?.token, login };
}

/** A client for a server, with retries. Without a token it may call what is public. */
export function openClient(options: {
  url: string;
  token?: string;
  signal: AbortSignal;
  patienceMs?: number;
  note?: (text: string) => void;
  headers?: Record<string, string>;
  onReply?: (reply: Reply) => void;
}): Client {
  const patienceMs = options.patienceMs ?? defaultPatienceMs;
  return makeClient({
    url: options.url,
    token: options.token,
    headers: options.headers,
    fetch: retryingFetch({
      patienceMs,
      signal: options.signal,
      onReply: options.onReply,
      waiting: (why) =>
        patienceMs > 3_000 && options.note?.(`No answer from ${options.url} (${why}); trying again.`),
    }),
  });
}

/** Says that a login is needed, and how. */
export function signInRequired(url: string): Failure {
  return new Failure('sign-in-required', `You are not signed in to ${url}.`, {
    exitCode: exitCodes.permission,
    hint: `Run: cde login ${url}`,
  });
}
