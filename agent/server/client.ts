import { CallError, type Client, makeClient } from '@cde/api/client.ts';
import { backoff, type Clock, systemClock } from '@cde/tunnel/clock.ts';
import { makeFetch } from './fetch.ts';

/** The typed client of one or more replicas of the server. */
export type ServerClient = Pick<Client, 'call'>;

/** Longer than a server under load takes for an agent's small requests, shorter than a missed sign of life. */
const requestTimeoutMs = 20_000;

/**
 * Makes a client that speaks to the server at `urls` (as CDE_SERVER_URL gives them, with commas between):
 * to the one that answered last, and where none answers there to each of the others once.
 */
export function makeServerClient(options: {
  urls: string;
  token: string;
  fetch?: typeof fetch;
}): ServerClient {
  const fetch = options.fetch ?? makeFetch({ timeoutMs: requestTimeoutMs });
  const clients = options.urls
    .split(',')
    .map((url) => url.trim().replace(/\/+$/, ''))
    .filter((url) => url !== '')
    .map((url) => makeClient({ url, token: options.token, fetch }));
  let current = 0;

  async function call(...input: Parameters<Client['call']>): Promise<unknown> {
    let last: unknown;
    for (let tried = 0; tried < clients.length; tried += 1) {
      try {
        return await clients[current]!.call(...input);
      } catch (error) {
        last = error;
        if (!(error instanceof CallError) || error.status !== 0) throw error;
        current = (current + 1) % clients.length;
      }
    }
    throw last;
  }
  return { call: call as Client['call'] };
}

/** True where the same request may succeed later: the server is away, overloaded, or in trouble. */
export function isTransient(error: unknown): boolean {
  if (!(error instanceof CallError)) return true;
  return error.status === 0 || error.status === 408 || error.status === 429 || error.status >= 500;
}

/** True where the server will have nothing more to do with this agent: another build has taken its place. */
export function isRejection(error: unknown): error is CallError {
  return error instanceof CallError && [401, 403, 410].includes(error.status);
}

/**
 * Calls until it succeeds, fails for good or `signal` is aborted (then it rejects with the last error),
 * waiting longer each time with full jitter, at most 15 s.
 */
export async function retryTransient<T>(
  attempt: () => Promise<T>,
  options: {
    signal: AbortSignal;
    clock?: Clock;
    onRetry?: (error: unknown, failures: number, waitMs: number) => void;
  },
): Promise<T> {
  const { signal, clock = systemClock } = options;
  for (let failures = 1; ; failures += 1) {
    try {
      return await attempt();
    } catch (error) {
      if (signal.aborted || !isTransient(error)) throw error;
      const waitMs = backoff(failures, clock.random);
      options.onRetry?.(error, failures, waitMs);
      await clock.sleep(waitMs, signal);
      if (signal.aborted) throw error;
    }
  }
}
