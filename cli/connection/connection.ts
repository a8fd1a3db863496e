import { type Client, makeClient } from '@cde/api/client.ts';
import { type Config, type Login, namedServer, readConfig } from '../config/config.ts';
import { exitCodes } from '../failure/exit-codes.ts';
import { Failure } from '../failure/failure.ts';
import { retryingFetch } from './retry.ts';
import type { Reply } from './send.ts';

/** The address of a server with default settings. */
export const localUrl = 'http://127.0.0.1:7080';

/** How long a command waits for a server that does not respond: enough for a network glitch, not for a restart. */
const defaultPatienceMs = 1_500;

/** The server that a command uses, with its token. */
export interface ChosenServer {
  url: string;
  token: string | undefined;
  login: Login | undefined;
  /** Whether `NAME.cde` in ssh means a workspace of this server; otherwise it is `NAME.ALIAS.cde`. */
  isDefaultForSsh: boolean;
}

/**
 * Chooses the server: `--server`, then `CDE_SERVER`, then `CDE_URL`, then the current one. The token is `CDE_TOKEN`, or
 * that of the server's login. A token in the environment belongs to the server in the environment and is not sent to
 * another one given by `--server`.
 */
export function chooseServer(env: NodeJS.ProcessEnv, named: string | undefined): ChosenServer {
  const config = readConfig(env);
  const inEnvironment = env.CDE_SERVER || env.CDE_URL || undefined;
  const environmentUrl = inEnvironment === undefined ? null : () => namedServer(config, inEnvironment);
  const url =
    named !== undefined ? namedServer(config, named) : environmentUrl ? environmentUrl() : config.current;
  if (url === null) throw noServer(config);
  const login = Object.hasOwn(config.servers, url) ? config.servers[url] : undefined;
  const ownToken =
    named === undefined || !environmentUrl || environmentUrl() === url ? env.CDE_TOKEN : undefined;
  return {
    url,
    token: ownToken || login?.token,
    login,
    isDefaultForSsh: url === config.current || config.current === null || login === undefined,
  };
}

function noServer(config: Config): Failure {
  const aliases = Object.values(config.servers).map(({ alias }) => alias);
  return new Failure('no-server', 'No server is chosen.', {
    exitCode: exitCodes.permission,
    hint:
      aliases.length > 0
        ? `You are signed in to ${aliases.join(', ')}. Choose one: cde server use ${aliases[0]}`
        : 'Run: cde login https://your-server  (or set CDE_SERVER and CDE_TOKEN)',
  });
}

/** The environment that makes another `cde` (a ProxyCommand, the background process) use the same server. */
export function serverEnvironment({ url }: Pick<ChosenServer, 'url'>): {
  CDE_SERVER: string;
  CDE_URL: string;
} {
  return { CDE_SERVER: url, CDE_URL: url };
}

/** A client for a server, with retries. Without a token it can only call public endpoints. */
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

/** The error for a missing login. */
export function signInRequired(url: string): Failure {
  return new Failure('sign-in-required', `You are not signed in to ${url}.`, {
    exitCode: exitCodes.permission,
    hint: `Run: cde login ${url}`,
  });
}
