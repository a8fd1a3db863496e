import { ReplyTooLarge, sendRequest } from '@cde/api/send-request.ts';
import { withGateway } from '@cde/tunnel/network/gateway.ts';
import { proxyAgent, proxyHint } from '@cde/tunnel/network/proxy.ts';

// Not imported: see api/send-request.ts.
const { Agent: HttpAgent } = process.getBuiltinModule('node:http');
const { Agent: HttpsAgent } = process.getBuiltinModule('node:https');

/** Replies are a few kilobytes; a much larger one is not from a cde server. */
const maxReplyBytes = 8 * 1024 * 1024;

/** The subset of `fetch` that the typed client uses. `timeoutMs` applies to each request. */
export function makeFetch({ timeoutMs }: { timeoutMs: number }): typeof fetch {
  const kept = { keepAlive: true, maxSockets: 4 };
  const http = withGateway(new HttpAgent(kept), false);
  const https = withGateway(proxyAgent(kept) ?? new HttpsAgent(kept), true);

  async function send(
    url: string,
    init: { method: string; headers: Record<string, string>; body?: string; signal?: AbortSignal },
  ) {
    const timeout = AbortSignal.timeout(timeoutMs);
    try {
      const { status, text } = await sendRequest(url, {
        method: init.method,
        headers: init.headers,
        body: init.body,
        agent: url.startsWith('https:') ? https : http,
        signal: init.signal ? AbortSignal.any([init.signal, timeout]) : timeout,
        maxReplyBytes,
      });
      return { ok: status >= 200 && status < 300, status, text: async () => text };
    } catch (cause) {
      if (cause instanceof ReplyTooLarge) throw cause;
      const why = timeout.aborted ? `no answer within ${timeoutMs / 1000} s` : (cause as Error).message;
      throw new Error(why + proxyHint(url), { cause });
    }
  }
  return send as unknown as typeof fetch;
}
