import { setTimeout as delay } from 'node:timers/promises';
import { CallError } from '@cde/api/client.ts';
import { makeReply, type Reply, send } from './send.ts';

/** Errors of a request that never reached the server: whatever it was, it may be sent again. */
const neverSent = new Set(['ECONNREFUSED', 'ENOTFOUND', 'EAI_AGAIN', 'ENETUNREACH', 'EHOSTUNREACH']);

/** The longest Retry-After to wait for. Beyond it, the user should decide. */
const maxRetryAfterMs = 30_000;

interface Options {
  /** How long a server that does not answer is asked again. */
  patienceMs: number;
  signal: AbortSignal;
  /** Told once when waiting gets long enough to be noticed. */
  waiting?: (why: string) => void;
  /** Sees each reply that is passed on: for what the client does not tell, such as cookies. */
  onReply?: (reply: Reply) => void;
}

/**
 * A `fetch` that tries again, after a growing pause, what can be repeated without harm: reads; changes
 * with an Idempotency-Key; PUT, PATCH and DELETE, which name their result; all else only when the request
 * never left this machine. A 503, or a reply that the first request is still in progress, is followed
 * (Retry-After). A proxy's 502, 503 or 504 is treated like no answer.
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
        // The first request was carried out though its reply was lost.
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
    // The client looks at these three and nothing else; a real Response would load all of fetch.
    const { status, ok } = reply;
    return { status, ok, text: async () => reply.text } as Response;
  };
}

/** How long the server asks to wait before the same request is sent again; undefined: it does not. */
function retryAfterMs(reply: Reply): number | undefined {
  // Of the conflicts only this one is about the request itself; another is for the person to resolve.
  const underWay = reply.status === 409 && reply.text.includes('"idempotency-in-progress"');
  if (reply.status !== 503 && !underWay) return undefined;
  const header = reply.header('retry-after');
  if (header === undefined) return undefined;
  const seconds = Number(header);
  const ms = Number.isFinite(seconds) ? seconds * 1000 : Date.parse(header) - Date.now();
  return Number.isFinite(ms) ? Math.max(50, ms) : undefined;
}

/**
 * What a proxy says while the replica behind it is replaced, and what an older server says while it stops: not in the
 * form of our errors, and gone in a moment.
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

/** A page of something else with status 200 (a captive portal, a wrong address) must not pass for a reply. */
function requireJson(reply: Reply): Reply {
  const other = reply.ok && reply.text !== '' && !reply.header('content-type')?.includes('json');
  return other ? makeReply(502, '') : reply;
}
