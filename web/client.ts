import './jitless.ts';
import { CallError, type CallInput, makeClient } from '@cde/api/client.ts';
import type { Endpoint } from '@cde/api/endpoint.ts';
import { sessionKeyHeader, sessionKeyProtocol, socketProtocol } from '@cde/api/identity.ts';
import type { z } from 'zod';
import { sessionKey } from './session-key.ts';

const client = makeClient({
  url: '',
  fetch: (url, init) => {
    const key = sessionKey();
    return fetch(
      url,
      key === null ? init : { ...init, headers: { ...init?.headers, [sessionKeyHeader]: key } },
    );
  },
});

/** Calls one endpoint of the contract as the signed-in user (by the cookie and the session key); rejects with CallError. */
export const call = client.call;
export { CallError };

/** A WebSocket of the server, at a path of it, as the signed-in user. */
export function openSocket(path: string): WebSocket {
  const key = sessionKey();
  const protocols = key === null ? [socketProtocol] : [socketProtocol, sessionKeyProtocol + key];
  return new WebSocket(
    `${location.protocol === 'https:' ? 'wss:' : 'ws:'}//${location.host}${path}`,
    protocols,
  );
}

/** A key for one press of a button: its retries are the same request, so they happen once. */
export function newIdempotencyKey(): string {
  // Not randomUUID: over plain http, to another host than localhost, browsers have none.
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) =>
    byte.toString(16).padStart(2, '0'),
  ).join('');
}

/** Every page of a list, following `next`. For lists that a person reads whole (tokens, templates, builds). */
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

/** The session has ended, or was never there. */
export function isSignedOut(error: unknown): boolean {
  return error instanceof CallError && error.status === 401;
}
