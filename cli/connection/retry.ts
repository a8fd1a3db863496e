import { setTimeout as delay } from 'node:timers/promises';
import { CallError } from '@cde/api/client.ts';
import { makeReply, type Reply, send } from './send.ts';

/** Errors of requests that never reached the server, so any of them can be sent again. */
const neverSent = new Set(['ECONNREFUSED', 'ENOTFOUND', 'EAI_AGAIN', 'ENETUNREACH', 'EHOSTUNREACH']);

/** Maximum Retry-After to wait for. Beyond it, the user should decide. */
const maxRetryAfterMs = 30_000;

interface Options {
  /** How long to retry if the server does not respond. */
  patienceMs: number;
  signal: AbortSignal;
  /** Called once when the wait becomes noticeable. */
  waiting?: (why: string) => void;
  /** Called with each final reply, for what the client does not return, such as cookies. */
  onReply?: (reply: Reply) => void;
}

/**
 * A `fetch` that retries idempotent requests with backoff: reads, requests with an Idempotency-Key, and PUT, PATCH and
 * DELETE. Other requests are retried only if they never left this machine. It respects Retry-After of a 503 and of a
 * reply that the first request is still in progress. A proxy's 502, 503 or 504 is treated like no response.
 */
export function retryingFetch({ patienceMs, signal, waiting, onReply }: Options): typeof fetch {
  const attempts = async (url: string, init: RequestInit): Promise<Reply> => {
    const method = init.method ?? 'GET';
    const headers = init.headers as Record<string, string>;
    const repeatable = method !== 'POST' || headers['idempotency-key'] !== undefined;
    const started = performance.now();
    let told = false;
    let lost = false;
    for (let attempt = 0; ; attempt++) {
      let reply: Reply | undefined;
      let failed: NodeJS.ErrnoException | undefined;
      try {
        reply = await send(url, {
          method,
          headers,
          ...(typeof init.body === 'string' && { body: init.body }),
          signal: init.signal ? AbortSignal.any([init.signal, signal]) : signal,
        });
      } catch (error) {
        if (signal.aborted || init.signal?.aborted || error instanceof CallError) throw error;
        failed = error as NodeJS.ErrnoException;
        if (!neverSent.has(failed.code ?? '')) {
          if (!repeatable) throw error;
          lost = true;
        }
      }
      const asked = reply && retryAfterMs(reply);
      const gatewayError = repeatable && reply && isGatewayError(reply) ? reply : undefined;
      if (reply && asked === undefined && !gatewayError) {
        // The first request was executed, but its reply was lost.
        return method === 'DELETE' && lost && reply.status === 404 ? makeReply(204, '') : reply;
      }
      const pause = asked ?? Math.min(2_000, 100 * 2 ** attempt) * (0.75 + Math.random() / 2);
      const spent = performance.now() - started;
      if (spent + pause > Math.max(patienceMs, asked === undefined ? 0 : maxRetryAfterMs)) {
        if (reply) return reply;
        throw failed;
      }
      if (!told && spent + pause > 1_000) {
        told = true;
        waiting?.(
          failed ? failed.message : gatewayError ? `status ${gatewayError.status}` : 'the server is busy',
        );
      }
      await delay(pause, undefined, { signal });
    }
  };
  return async (input, init = {}) => {
    const reply = requireJson(await attempts(String(input), init));
    onReply?.(reply);
    // The client uses only these three; a real Response would load all of fetch.
    const { status, ok } = reply;
    return { status, ok, text: async () => reply.text } as Response;
  };
}

/** The delay that the server requests before a retry; undefined if it requests none. */
function retryAfterMs(reply: Reply): number | undefined {
  // The only conflict that resolves by itself; others are for the user.
  const isInProgress = reply.status === 409 && reply.text.includes('"idempotency-in-progress"');
  if (reply.status !== 503 && !isInProgress) return undefined;
  const header = reply.header('retry-after');
  if (header === undefined) return undefined;
  const seconds = Number(header);
  const ms = Number.isFinite(seconds) ? seconds * 1000 : Date.parse(header) - Date.now();
  return Number.isFinite(ms) ? Math.max(50, ms) : undefined;
}

/**
 * The response of a proxy while its replica is replaced, or of an older server while it stops: temporary, and not in
 * the format of our errors.
 */
function isGatewayError(reply: Reply): boolean {
  if (![502, 503, 504].includes(reply.status)) return false;
  try {
    const body = JSON.parse(reply.text) as { code?: unknown } | null;
    return typeof body?.code !== 'string';
  } catch {
    return true;
  }
}

/** A page of another program with status 200 (a captive portal, a wrong address) must not be taken for a reply. */
function requireJson(reply: Reply): Reply {
  const other = reply.ok && reply.text !== '' && !reply.header('content-type')?.includes('json');
  return other ? makeReply(502, '') : reply;
}
