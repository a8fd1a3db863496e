import { setTimeout as delay } from 'node:timers/promises';

/** Errors of a request that never reached the server: whatever it was, it may be sent again. */
const neverSent = new Set(['ECONNREFUSED', 'ENOTFOUND', 'EAI_AGAIN', 'ENETUNREACH', 'EHOSTUNREACH']);

/** The longest Retry-After that is obeyed; beyond it the person should decide. */
const longestWaitMs = 30_000;

interface Options {
  /** How long a server that does not answer is asked again. */
  patienceMs: number;
  signal: AbortSignal;
  /** Told once when waiting gets long enough to be noticed. */
  waiting?: (why: string) => void;
}

/**
 * A `fetch` that tries again, after a growing pause, what can be repeated without harm: reads; changes
 * with an Idempotency-Key; PUT, PATCH and DELETE, which name their result; all else only when the request
 * never left this machine. A 503, or a reply that the first request is still under way, is obeyed
 * (Retry-After).
 */
export function retryingFetch({ patienceMs, signal, waiting }: Options): typeof fetch {
  return async (input, init = {}) => {
    const method = init.method ?? 'GET';
    const repeatable = method !== 'POST' || new Headers(init.headers).has('idempotency-key');
    const started = performance.now();
    let told = false;
    let lost = false;
    for (let attempt = 0; ; attempt++) {
      let response: Response | undefined;
      let failed: Error | undefined;
      let text = '';
      try {
        response = await fetch(input, {
          ...init,
          signal: init.signal ? AbortSignal.any([init.signal, signal]) : signal,
        });
        // The body too may break off; read here, it is part of the attempt.
        text = await response.text();
        response = withBody(response, text);
      } catch (error) {
        if (signal.aborted || init.signal?.aborted) throw error;
        failed = error as Error;
        const code = ((failed.cause ?? failed) as NodeJS.ErrnoException).code ?? '';
        if (!neverSent.has(code)) {
          if (!repeatable) throw error;
          lost = true;
        }
      }
      const asked = response && retryAfterMs(response, text);
      if (response && asked === undefined) {
        // The first request was carried out though its reply was lost.
        if (method === 'DELETE' && lost && response.status === 404)
          return new Response(null, { status: 204 });
        return response;
      }
      const pause = asked ?? Math.min(2_000, 100 * 2 ** attempt) * (0.75 + Math.random() / 2);
      const spent = performance.now() - started;
      if (spent + pause > Math.max(patienceMs, asked === undefined ? 0 : longestWaitMs)) {
        if (response) return response;
        throw failed;
      }
      if (!told && spent + pause > 1_000) {
        told = true;
        waiting?.(
          failed ? ((failed.cause as Error | undefined)?.message ?? failed.message) : 'the server is busy',
        );
      }
      await delay(pause, undefined, { signal });
    }
  };
}

/** How long the server asks to wait before the same request is sent again; undefined: it does not. */
function retryAfterMs(response: Response, text: string): number | undefined {
  // Of the conflicts only this one is about the request itself; another is for the person to resolve.
  const underWay = response.status === 409 && text.includes('"idempotency-in-progress"');
  if (response.status !== 503 && !underWay) return undefined;
  const header = response.headers.get('retry-after');
  if (header === null) return undefined;
  const seconds = Number(header);
  const ms = Number.isFinite(seconds) ? seconds * 1000 : Date.parse(header) - Date.now();
  return Number.isFinite(ms) ? Math.max(50, ms) : undefined;
}

/** A page of something else with status 200 (a captive portal, a wrong address) must not pass for a reply. */
function withBody(response: Response, text: string): Response {
  const { status } = response;
  if (response.ok && text !== '' && !response.headers.get('content-type')?.includes('json'))
    return new Response('', { status: 502 });
  return new Response(status === 204 || status === 304 ? null : text, { status, headers: response.headers });
}
