import { CallError, type Client, makeClient } from '@cde/api/client.ts';
import { backoff, type Clock, systemClock } from '@cde/tunnel/clock.ts';
import { makeFetch } from './fetch.ts';

/** The typed client of one or more replicas of the server. */
export type ServerClient = Pick<Client, 'call'>;

/** Longer than a loaded server takes for small requests, and shorter than a missed heartbeat. */
const requestTimeoutMs = 20_000;

/**
 * Makes a client of the server's replicas at `urls` (CDE_SERVER_URL, separated by commas). It uses the one that responded
 * last, and tries each of the others once if that is unreachable.
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

/** True if the request may succeed later: the server is unreachable, overloaded or failing. */
function isTransient(error: unknown): boolean {
  if (!(error instanceof CallError)) return true;
  return error.status === 0 || error.status === 408 || error.status === 429 || error.status >= 500;
}

/** True if requests do not reach the server at the moment: no response, or that of a proxy or of a server that is busy or stops. */
export function isOutage(error: unknown): boolean {
  if (!(error instanceof CallError)) return true;
  return [0, 408, 429, 502, 503, 504].includes(error.status);
}

/** True if the server permanently rejects this agent, because a newer build has replaced it. */
export function isRejection(error: unknown): error is CallError {
  return error instanceof CallError && [401, 403, 410].includes(error.status);
}

/**
 * Retries transient failures with exponential backoff (full jitter, at most 15 s). Rejects with the last error if it fails
 * permanently or `signal` is aborted.
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

/** A failed request, for people. */
export function describeFailure(error: unknown): string {
  const { message, body } = error as Error & { body?: { detail?: string } };
  return body?.detail ? `${message} (${body.detail})` : message;
}
