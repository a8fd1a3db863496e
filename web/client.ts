import './jitless.ts';
import { CallError, type CallInput, makeClient } from '@cde/api/client.ts';
import type { Endpoint } from '@cde/api/endpoint.ts';
import { sessionKeyHeader, sessionKeyProtocol, socketProtocol } from '@cde/api/identity.ts';
import type { z } from 'zod';
import { boundedFetch } from './bounded-fetch.ts';
import { sessionKey } from './session-key.ts';

const client = makeClient({
  url: '',
  fetch: (url, init) => {
    const key = sessionKey();
    return boundedFetch(
      url,
      key === null ? init : { ...init, headers: { ...init?.headers, [sessionKeyHeader]: key } },
    );
  },
});

/** Calls one endpoint as the signed-in user, by the cookie and the session key. Rejects with CallError. */
export const call = client.call;
export { CallError };

/** Opens a WebSocket at a path of the server, as the signed-in user. */
export function openSocket(path: string): WebSocket {
  const key = sessionKey();
  const protocols = key === null ? [socketProtocol] : [socketProtocol, sessionKeyProtocol + key];
  return new WebSocket(
    `${location.protocol === 'https:' ? 'wss:' : 'ws:'}//${location.host}${path}`,
    protocols,
  );
}

/** A key for one press of a button, so that retries of the request have no further effect. */
export function newIdempotencyKey(): string {
  // Not randomUUID, which browsers offer only over https and on localhost.
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) =>
    byte.toString(16).padStart(2, '0'),
  ).join('');
}

/** All pages of a list. For short lists that are shown whole, such as tokens and templates. */
export async function callAll<Q extends z.ZodType, T>(
  endpoint: Endpoint<z.ZodType, Q, z.ZodType, z.ZodType<{ items: T[]; next: string | null }>>,
  input: { params?: Record<string, string>; query?: Partial<z.input<Q>>; signal?: AbortSignal } = {},
): Promise<T[]> {
  const items: T[] = [];
  let after: string | undefined;
  do {
    const query = { ...input.query, limit: 1000, ...(after && { after }) };
    const page = (await client.call(
      endpoint as Endpoint,
      { ...input, query } as unknown as CallInput<z.ZodType, z.ZodType, z.ZodType>,
    )) as { items: T[]; next: string | null };
    items.push(...page.items);
    after = page.next ?? undefined;
  } while (after);
  return items;
}

/** Whether the error says that the user is not signed in. */
export function isSignedOut(error: unknown): boolean {
  return error instanceof CallError && error.status === 401;
}
