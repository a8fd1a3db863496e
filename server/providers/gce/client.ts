import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';

export interface GceAddress {
  project: string;
  region: string;
  /** Of the API, if not the public one. */
  endpoint?: string | undefined;
  /** Makes access tokens; by default from the credentials that Google's tools find. */
  token?: () => Promise<string>;
}

/** A call that has no answer after this long has failed. Slow work is an operation, whose calls are short. */
const callTimeoutMs = 30_000;
/** More waiting is better done between steps, which say what they wait for. */
const maxAttempts = 3;
const firstPauseMs = 100;
const scope = 'https://www.googleapis.com/auth/compute';

/** Compute Engine refused a call, or an operation failed. */
export class GceError extends Error {
  /** Of HTTP. */
  readonly status: number;
  /** Such as `notFound` or, of an operation, `QUOTA_EXCEEDED`. */
  readonly reason: string;
  constructor(status: number, reason: string, message: string) {
    super(message);
    this.status = status;
    this.reason = reason;
  }
}

/** What changes something, which takes Compute Engine a while. */
export interface Operation {
  name: string;
  /** A URL; absent of operations that belong to no zone. */
  zone?: string;
  status: 'PENDING' | 'RUNNING' | 'DONE';
  operationType?: string;
  insertTime?: string;
  error?: { errors?: { code?: string; message?: string }[] };
  httpErrorStatusCode?: number;
  httpErrorMessage?: string;
}

export type Query = Record<string, string | undefined>;

interface ErrorBody {
  error?: { code?: number; message?: string; status?: string; errors?: { reason?: string }[] };
}

/** The last part of the URL by which Compute Engine names something. */
export const nameIn = (url: string | undefined): string => url?.slice(url.lastIndexOf('/') + 1) ?? '';

/** A path below the project, or one that starts with `projects/`; each value is encoded. */
export const path = (strings: TemplateStringsArray, ...values: string[]) =>
  strings.reduce((all, text, index) => all + encodeURIComponent(values[index - 1]!) + text);

/**
 * A client of the REST API of Compute Engine. Connects with the first call.
 *
 * Not `@google-cloud/compute`: measured in docs/gce-provider.md.
 */
export async function makeGceClient(address: GceAddress) {
  const { project, endpoint = 'https://compute.googleapis.com' } = address;
  const token = address.token ?? (await findCredentials());

  async function once(method: 'GET' | 'POST' | 'DELETE', url: URL, body: unknown): Promise<unknown> {
    const answer = await fetch(url, {
      method,
      signal: AbortSignal.timeout(callTimeoutMs),
      headers: {
        authorization: `Bearer ${await token()}`,
        ...(body !== undefined && { 'content-type': 'application/json' }),
      },
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });
    const text = await answer.text();
    let content: unknown = null;
    try {
      content = text === '' ? null : JSON.parse(text);
    } catch {
      // A proxy's page; its status says enough.
    }
    if (answer.ok) return content;
    const { error } = (content ?? {}) as ErrorBody;
    throw new GceError(
      answer.status,
      error?.errors?.[0]?.reason ?? error?.status ?? '',
      error?.message ?? `HTTP ${answer.status}`,
    );
  }

  async function call<T>(
    method: 'GET' | 'POST' | 'DELETE',
    at: string,
    { query = {}, body }: { query?: Query; body?: unknown } = {},
  ): Promise<T> {
    const below = at.startsWith('projects/') ? at : `projects/${encodeURIComponent(project)}${at}`;
    const url = new URL(`/compute/v1/${below}`, endpoint);
    // The same for all attempts, so that Compute Engine does it once. Names and states do that for repeated steps.
    const requestId = method === 'GET' ? undefined : randomUUID();
    for (const [key, value] of Object.entries({ ...query, requestId }))
      if (value !== undefined) url.searchParams.set(key, value);
    for (let attempt = 1; ; attempt++) {
      try {
        return (await once(method, url, body)) as T;
      } catch (error) {
        const isPassing = !(error instanceof GceError) || error.status >= 500;
        if (!isPassing || attempt >= maxAttempts) throw error;
        await delay(firstPauseMs * 2 ** attempt * (1 + Math.random()));
      }
    }
  }

  /** All pages. `field`: of an aggregated list, in each zone. */
  async function list<T>(
    at: string,
    { filter, field }: { filter?: string; field?: string } = {},
  ): Promise<T[]> {
    const found: T[] = [];
    let pageToken: string | undefined;
    do {
      const page = await call<{ items?: T[] | Record<string, Record<string, T[]>>; nextPageToken?: string }>(
        'GET',
        at,
        { query: { filter, maxResults: '500', pageToken } },
      );
      const items = page.items ?? [];
      if (Array.isArray(items)) found.push(...items);
      else for (const each of Object.values(items)) found.push(...(each[field!] ?? []));
      pageToken = page.nextPageToken;
    } while (pageToken);
    return found;
  }

  const at = ({ name, zone }: Pick<Operation, 'name' | 'zone'>) =>
    zone === undefined ? path`/global/operations/${name}` : path`/zones/${nameIn(zone)}/operations/${name}`;

  /** Whether it is done. Rejects if it failed. */
  async function isDone(operation: Pick<Operation, 'name' | 'zone'>): Promise<boolean> {
    const now = await orNull(call<Operation>('GET', at(operation)));
    // They are deleted after days.
    if (now === null) return true;
    if (now.status !== 'DONE') return false;
    throwIfFailed(now);
    return true;
  }

  /** Waits for what takes a moment. False if it takes longer. Rejects if it failed. */
  async function settle(operation: Operation, maxMs: number): Promise<boolean> {
    if (operation.status === 'DONE') {
      throwIfFailed(operation);
      return true;
    }
    const until = performance.now() + maxMs;
    for (let pauseMs = 50; performance.now() < until; pauseMs = Math.min(pauseMs * 2, 1_000)) {
      await delay(pauseMs);
      if (await isDone(operation)) return true;
    }
    return false;
  }

  return {
    project,
    get: <T>(where: string, query?: Query) => call<T>('GET', where, query && { query }),
    post: <T = Operation>(where: string, body?: unknown, query?: Query) =>
      call<T>('POST', where, { body: body ?? {}, ...(query && { query }) }),
    delete: (where: string) => call<Operation>('DELETE', where),
    list,
    isDone,
    settle,
  };
}

export type GceClient = Awaited<ReturnType<typeof makeGceClient>>;

async function findCredentials(): Promise<() => Promise<string>> {
  // Late, because most servers have no workspaces on Google Compute.
  const { GoogleAuth } = await import('google-auth-library');
  const auth = new GoogleAuth({ scopes: [scope] });
  return async () => {
    try {
      const found = await auth.getAccessToken();
      if (found) return found;
    } catch (error) {
      if (isUnreachable(error)) throw error;
      throw new GceError(401, 'authError', messageOf(error));
    }
    throw new GceError(401, 'authError', 'There are no credentials.');
  };
}

function throwIfFailed({ error, httpErrorStatusCode, httpErrorMessage }: Operation): void {
  if (!error) return;
  const first = error.errors?.[0];
  throw new GceError(
    httpErrorStatusCode ?? 400,
    first?.code ?? '',
    first?.message ?? httpErrorMessage ?? 'The operation failed.',
  );
}

/** What a later step asks about. */
export const named = (operation: Operation | null): { operation?: string } =>
  operation === null ? {} : { operation: `${nameIn(operation.zone)}/${operation.name}` };

/** `fetch` says why it failed in the cause only. */
export function messageOf(error: unknown): string {
  const { cause, message, code } = error as Error & { cause?: Error & { code?: string }; code?: string };
  return cause?.message?.trim() || cause?.code || message?.trim() || code || String(error);
}

const networkErrors =
  /^(ECONN\w+|EPIPE|ETIMEDOUT|ENOTFOUND|EAI_AGAIN|EHOST\w+|ENET\w+|UND_ERR_\w+|ERR_TLS_\w+|CERT_\w+|DEPTH_ZERO\w+|SELF_SIGNED\w+|UNABLE_TO_\w+)$/;

const reasonOf = (error: unknown): string => (error instanceof GceError ? error.reason : '');

/** Whether a zone has no room for a machine. Compute Engine answers some of these with HTTP 503. */
export const isWithoutCapacity = (error: unknown): boolean =>
  /^(ZONE_)?RESOURCE_POOL_EXHAUSTED|^STOCKOUT|^RESOURCE_NOT_AVAILABLE/.test(reasonOf(error));

/** Whether the rate of the project's calls is limited. */
export const isThrottled = (error: unknown): boolean =>
  error instanceof GceError &&
  (error.status === 429 ||
    /^((user)?rateLimitExceeded|RATE_LIMIT_EXCEEDED|RESOURCE_EXHAUSTED)$/i.test(error.reason));

/** Whether Compute Engine gave no answer, so that nothing is known. */
export function isUnreachable(error: unknown): boolean {
  if (error instanceof GceError) return error.status >= 500 && !isWithoutCapacity(error);
  const { code, cause, name } = error as { code?: unknown; cause?: { code?: unknown }; name?: string };
  if (name === 'TimeoutError') return true;
  return networkErrors.test(String(code ?? cause?.code ?? ''));
}

/** Whether something else works on it at the moment. */
export const isBusy = (error: unknown): boolean =>
  error instanceof GceError &&
  (error.status === 412 ||
    /^(conditionNotMet|resourceNotReady|RESOURCE_NOT_READY|OPERATION_IN_PROGRESS)$/.test(error.reason));

/** The result, or null if what is asked for does not exist. */
export async function orNull<T>(call: Promise<T>): Promise<T | null> {
  try {
    return await call;
  } catch (error) {
    if (error instanceof GceError && error.status === 404) return null;
    throw error;
  }
}

/** Waits for a call; refusals with one of these reasons are as good, and give null. */
export async function accept<T>(call: Promise<T>, ...reasons: RegExp[]): Promise<T | null> {
  try {
    return await call;
  } catch (error) {
    if (reasons.some((each) => each.test(reasonOf(error)))) return null;
    throw error;
  }
}

export const notFound = /^(notFound|RESOURCE_NOT_FOUND)$/;
export const alreadyExists = /^(alreadyExists|RESOURCE_ALREADY_EXISTS)$/;
export const inUse = /^(resourceInUseByAnotherResource|RESOURCE_IN_USE_BY_ANOTHER_RESOURCE)$/;
export const notReady = /^(resourceNotReady|RESOURCE_NOT_READY)$/;
