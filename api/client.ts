import type { z } from 'zod';
import type { Endpoint } from './endpoint.ts';
import type { ApiError } from './errors.ts';

type In<T> = T extends z.ZodNever ? undefined : T extends z.ZodType ? z.input<T> : undefined;
type Field<K extends string, T> = [T] extends [undefined]
  ? { [P in K]?: undefined }
  : undefined extends T
    ? { [P in K]?: T }
    : { [P in K]: T };
export type CallInput<P extends z.ZodType, Q extends z.ZodType, B extends z.ZodType> = Field<
  'params',
  In<P>
> & { query?: Q extends z.ZodNever ? undefined : Partial<z.input<Q>> } & Field<'body', In<B>> & {
    idempotencyKey?: string;
    signal?: AbortSignal;
  };

/** A reply that was not a success, or no reply at all (`status` 0, code `server-unreachable`). */
export class CallError extends Error {
  readonly status: number;
  readonly body: ApiError;
  constructor(status: number, body: ApiError, cause?: unknown) {
    super(body.message, { cause });
    this.name = 'CallError';
    this.status = status;
    this.body = body;
  }
  get code(): string {
    return this.body.code;
  }
}

/** Without the schema: it would make every `cde ssh` and every page load zod for this check alone. */
function isApiError(body: unknown): body is ApiError {
  const error = body as Partial<ApiError> | null | undefined;
  return typeof error?.code === 'string' && typeof error.message === 'string';
}

export interface Client {
  url: string;
  /** Calls one endpoint; rejects with CallError. Replies are typed by the contract. */
  call<P extends z.ZodType, Q extends z.ZodType, B extends z.ZodType, R extends z.ZodType>(
    endpoint: Endpoint<P, Q, B, R>,
    ...input: Partial<CallInput<P, Q, B>> extends CallInput<P, Q, B>
      ? [CallInput<P, Q, B>?]
      : [CallInput<P, Q, B>]
  ): Promise<z.output<R>>;
}

/**
 * The typed client for browsers and Node. Without `token`, the browser's cookie authenticates.
 * `url`: of the server, without a trailing slash; '' means that of the page.
 */
export function makeClient(options: {
  url: string;
  token?: string;
  fetch?: typeof fetch;
  headers?: Record<string, string>;
}): Client {
  const send = options.fetch ?? fetch;
  return {
    url: options.url,
    async call(endpoint, ...[input]) {
      const given = (input ?? {}) as {
        params?: Record<string, unknown>;
        query?: Record<string, unknown>;
        body?: unknown;
        idempotencyKey?: string;
        signal?: AbortSignal;
      };
      const path = endpoint.path.replace(/:([a-zA-Z]+)/g, (_, name: string) =>
        encodeURIComponent(String(given.params?.[name] ?? '')),
      );
      const query = new URLSearchParams();
      for (const [key, value] of Object.entries(given.query ?? {}))
        if (value !== undefined && value !== null) query.set(key, String(value));
      const hasBody = endpoint.body !== undefined && endpoint.method !== 'GET';
      let response: Response;
      try {
        response = await send(`${options.url}${path}${query.size > 0 ? `?${query}` : ''}`, {
          method: endpoint.method,
          headers: {
            accept: 'application/json',
            ...(hasBody && { 'content-type': 'application/json' }),
            ...(options.token && { authorization: `Bearer ${options.token}` }),
            ...(given.idempotencyKey && { 'idempotency-key': given.idempotencyKey }),
            ...options.headers,
          },
          ...(hasBody && { body: JSON.stringify(given.body ?? {}) }),
          ...(given.signal && { signal: given.signal }),
        });
      } catch (cause) {
        if (given.signal?.aborted || cause instanceof CallError) throw cause;
        const reason = ((cause as Error).cause as Error | undefined)?.message ?? (cause as Error).message;
        throw new CallError(
          0,
          {
            code: 'server-unreachable',
            message: `No answer from ${options.url || 'the server'}.`,
            detail: reason,
            hint: 'Check the address and that the server runs.',
          },
          cause,
        );
      }
      const text = await response.text();
      let body: unknown;
      try {
        body = text === '' ? undefined : JSON.parse(text);
      } catch {
        body = undefined;
      }
      if (!response.ok) {
        throw new CallError(
          response.status,
          isApiError(body)
            ? body
            : {
                code: 'not-a-cde-server',
                message: `${options.url} answered ${response.status} in a form that is not cde's.`,
                hint: 'Check the address; a proxy in between may have answered.',
              },
        );
      }
      return body as never;
    },
  };
}
