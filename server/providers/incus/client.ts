import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import type { Dispatcher } from 'undici';
import type { IncusAddress } from '../../incus-address.ts';

/** A call that has no answer after this long has failed. Slow work is an operation, whose calls are short. */
const callTimeoutMs = 60_000;
/** How long one call waits for an operation, so that its progress is seen. */
const waitSeconds = 5;
/** How much of the end of a file is kept. */
const maxFileBytes = 256 * 1024;

/** Incus refused a call, or an operation failed. */
export class IncusError extends Error {
  /** As of HTTP; 400 for a failed operation, whose cause only the message tells. */
  readonly status: number;
  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

export interface Operation {
  id: string;
  status_code: number;
  err: string;
  may_cancel: boolean;
  resources?: Record<string, string[]> | null;
  metadata?: Record<string, unknown> | null;
}

export type Query = Record<string, string | undefined>;

interface CallOptions {
  query?: Query;
  /** Sent as JSON, unless it is bytes. */
  body?: unknown;
  headers?: Record<string, string>;
}

interface Answer {
  type: 'sync' | 'async' | 'error';
  error: string;
  error_code: number;
  operation: string;
  metadata: unknown;
}

/** A path of the API; each value is encoded. */
export const path = (strings: TemplateStringsArray, ...values: string[]) =>
  strings.reduce((all, text, index) => all + encodeURIComponent(values[index - 1]!) + text);

/** A client of an Incus server. Connects with the first call. */
export async function makeIncusClient(address: IncusAddress) {
  // Late, because most servers have no Incus.
  const { Agent, WebSocket } = await import('undici');
  const isSocket = address.url.startsWith('unix:');
  const origin = isSocket ? 'http://incus' : new URL(address.url).origin;
  const dispatcher = new Agent({
    connections: 16,
    headersTimeout: callTimeoutMs,
    bodyTimeout: callTimeoutMs,
    connect: isSocket
      ? { socketPath: new URL(address.url).pathname, timeout: 10_000 }
      : { ...tlsOf(address.certificates!), timeout: 10_000 },
  });

  const urlOf = (at: string, query: Query = {}) => {
    const url = new URL(at, origin);
    for (const [name, value] of Object.entries(query))
      if (value !== undefined) url.searchParams.set(name, value);
    return url;
  };

  async function call(method: Dispatcher.HttpMethod, at: string, { query, body, headers }: CallOptions) {
    const url = urlOf(at, query);
    const isJson = body !== undefined && !isBytes(body);
    return dispatcher.request({
      origin,
      path: url.pathname + url.search,
      method,
      headers: { ...(isJson && { 'content-type': 'application/json' }), ...headers },
      body: (isJson ? JSON.stringify(body) : (body as Buffer | Readable | undefined)) ?? null,
    });
  }

  async function answerOf(response: Dispatcher.ResponseData): Promise<Answer> {
    const text = await response.body.text();
    let answer: Answer;
    try {
      answer = JSON.parse(text) as Answer;
    } catch {
      throw new IncusError(response.statusCode, text.slice(0, 1000) || `HTTP ${response.statusCode}`);
    }
    if (answer.type === 'error') throw new IncusError(answer.error_code || response.statusCode, answer.error);
    // Something in front of Incus answered, such as a proxy, so nothing is known.
    if (answer.type !== 'sync' && answer.type !== 'async')
      throw new IncusError(503, `HTTP ${response.statusCode}, not from Incus: ${text.slice(0, 1000)}`);
    return answer;
  }

  const send = async (method: Dispatcher.HttpMethod, at: string, options: CallOptions = {}) =>
    answerOf(await call(method, at, options));

  /** Waits for the operation that an answer started, if it started one. */
  async function settle(
    answer: Answer,
    onProgress?: (metadata: Record<string, unknown>) => void,
  ): Promise<Operation | null> {
    if (answer.type !== 'async') return null;
    for (;;) {
      const operation = (await orNull(
        get<Operation>(`${answer.operation.split('?')[0]}/wait`, { timeout: String(waitSeconds) }),
      )) as Operation | null;
      // Operations are forgotten seconds after they have ended. What came of it is found where it would be.
      if (!operation || operation.status_code === 200) return operation;
      if (operation.status_code > 200)
        throw new IncusError(400, operation.err || 'The operation was cancelled.');
      if (operation.metadata) onProgress?.(operation.metadata);
    }
  }

  const get = async <T>(at: string, query?: Query) => (await send('GET', at, { query })).metadata as T;

  return {
    get,
    send,
    /** Starts an operation and waits for its end. */
    async run(
      method: Dispatcher.HttpMethod,
      at: string,
      options: CallOptions & { onProgress?: (metadata: Record<string, unknown>) => void } = {},
    ) {
      return settle(await send(method, at, options), options.onProgress);
    },
    /** Changes an object as one step: `change` gets it as it is, and is repeated if another one changed it meanwhile. */
    async change<T>(at: string, query: Query, change: (found: T) => Partial<T> | null): Promise<boolean> {
      for (;;) {
        const response = await call('GET', at, { query });
        const etag = String(response.headers.etag);
        const wanted = change((await answerOf(response)).metadata as T);
        if (wanted === null) return false;
        try {
          await settle(await send('PUT', at, { query, body: wanted, headers: { 'if-match': etag } }));
          return true;
        } catch (error) {
          if (statusOf(error) !== 412) throw error;
        }
      }
    },
    /** A file's text, or the end of it; null if there is none. */
    async readFile(at: string, query: Query): Promise<string | null> {
      const response = await call('GET', at, { query });
      if (response.statusCode >= 400) return orNull(answerOf(response).then(() => null));
      let text = Buffer.alloc(0);
      for await (const chunk of response.body) {
        text = Buffer.concat([text, chunk as Buffer]).subarray(-maxFileBytes);
      }
      return text.toString('utf8');
    },
    /** A stream of events; the dispatcher of the calls connects it. */
    events: (query: Query) =>
      new WebSocket(urlOf('/1.0/events', query).href.replace(/^http/, 'ws'), { dispatcher }),
    close: () => dispatcher.destroy(),
  };
}

export type IncusClient = Awaited<ReturnType<typeof makeIncusClient>>;

const isBytes = (body: unknown) =>
  typeof body === 'string' || Buffer.isBuffer(body) || typeof (body as Readable).pipe === 'function';

function tlsOf(certificates: string) {
  const read = (name: string) => readFileSync(join(certificates, name));
  const client = { cert: read('client.crt'), key: read('client.key') };
  if (!existsSync(join(certificates, 'server.crt'))) return client;
  // Servers sign their own certificates: it is this very one, whatever name it is for.
  return { ...client, ca: read('server.crt'), checkServerIdentity: () => undefined };
}

/** The status of a refusal; undefined if Incus did not answer. */
export const statusOf = (error: unknown): number | undefined =>
  error instanceof IncusError ? error.status : undefined;

export const messageOf = (error: unknown): string =>
  (error as Error).message?.trim() || (error as { code?: string }).code || String(error);

const networkErrors =
  /^(ECONN\w+|ENOENT|EACCES|EPERM|EPIPE|ETIMEDOUT|ENOTFOUND|EAI_AGAIN|EHOST\w+|ENET\w+|ERR_TLS_\w+|CERT_\w+|DEPTH_ZERO\w+|SELF_SIGNED\w+|UNABLE_TO_\w+|UND_ERR_\w+)$/;

/** What a server says whose database did not answer it in time, or is changing its leader. */
const overloaded =
  /context deadline exceeded|database is locked|no available (dqlite|cowsql) leader|not (the )?leader|leadership lost/i;

/** Whether Incus gave no answer, so that nothing is known. It says 503 while it starts or ends. */
export function isUnreachable(error: unknown): boolean {
  const status = statusOf(error);
  if (status !== undefined) return status === 503 || overloaded.test(messageOf(error));
  return networkErrors.test((error as { code?: string }).code ?? '');
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

/**
 * Whether another operation, of another server of ours or of a person, has the instance just now. One that is started while a
 * file is written to it ends the process that writes (`forkfile`).
 */
export const isBusy = (error: unknown): boolean =>
  statusOf(error) !== undefined && /is busy|non-reusable operation|forkfile\.sock/i.test(messageOf(error));

/** What a server says of something that another server of ours made at the same time. */
export const alreadyThere = /already (exists|in use)|unique constraint/i;

/** Waits for a call; a refusal with one of these statuses or messages is as good. */
export async function accept(call: Promise<unknown>, ...refusals: (number | RegExp)[]): Promise<void> {
  try {
    await call;
  } catch (error) {
    const isFine = refusals.some((each) =>
      typeof each === 'number'
        ? statusOf(error) === each
        : statusOf(error) !== undefined && each.test(messageOf(error)),
    );
    if (!isFine) throw error;
  }
}
