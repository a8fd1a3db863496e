/** Longer than the server holds a request (25 s). Without a timeout, a lost reply would leave the page loading. */
const timeoutMs = 60_000;
/** Many times the largest page of a list. */
const maxReplyBytes = 64 * 1024 * 1024;

/** `fetch` that rejects if a reply takes too long or is too large. */
export async function boundedFetch(
  url: string | URL | Request,
  init: RequestInit = {},
  limits: { timeoutMs?: number; maxBytes?: number; fetch?: typeof fetch } = {},
): Promise<Response> {
  const { maxBytes = maxReplyBytes } = limits;
  const timeout = AbortSignal.timeout(limits.timeoutMs ?? timeoutMs);
  const signal = init.signal ? AbortSignal.any([init.signal, timeout]) : timeout;
  const response = await (limits.fetch ?? fetch)(url, { ...init, signal });
  // Chromium gives replies like 204 an empty body, which a new Response must not have.
  if (!response.body || [204, 205, 304].includes(response.status)) return response;
  let received = 0;
  const counted = response.body.pipeThrough(
    new TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>>({
      transform(chunk, controller) {
        received += chunk.byteLength;
        if (received <= maxBytes) controller.enqueue(chunk);
        else controller.error(new Error(`The reply is larger than ${maxBytes} bytes.`));
      },
    }),
  );
  const { status, statusText, headers } = response;
  return new Response(counted, { status, statusText, headers });
}
