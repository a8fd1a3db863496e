import { withGateway } from '@cde/tunnel/network/gateway.ts';
import { proxyAgent, proxyHint } from '@cde/tunnel/network/proxy.ts';

// Not imported: an import evaluates every export of node:http, and one of them (WebSocket) loads all of undici.
const { Agent: HttpAgent, request: requestHttp } = process.getBuiltinModule('node:http');
const { Agent: HttpsAgent, request: requestHttps } = process.getBuiltinModule('node:https');

/** Replies are a few kilobytes; a much larger one is not from a cde server. */
const maxReplyBytes = 8 * 1024 * 1024;

/**
 * The subset of `fetch` that the typed client uses, on `node:http`: loading Node's `fetch` takes 30 ms of the agent's start
 * and 10 MB in every workspace. `timeoutMs` applies to each request.
 */
export function makeFetch({ timeoutMs }: { timeoutMs: number }): typeof fetch {
  const kept = { keepAlive: true, maxSockets: 4 };
  const http = withGateway(new HttpAgent(kept), false);
  const https = withGateway(proxyAgent(kept) ?? new HttpsAgent(kept), true);

  function send(
    input: string,
    init: { method: string; headers: Record<string, string>; body?: string; signal?: AbortSignal },
  ) {
    const url = new URL(input);
    const body = init.body === undefined ? undefined : Buffer.from(init.body);
    return new Promise<{ ok: boolean; status: number; text(): Promise<string> }>((resolve, reject) => {
      const timeout = AbortSignal.timeout(timeoutMs);
      const request = (url.protocol === 'https:' ? requestHttps : requestHttp)(url, {
        method: init.method,
        headers: { ...init.headers, ...(body && { 'content-length': String(body.length) }) },
        agent: url.protocol === 'https:' ? https : http,
        signal: init.signal ? AbortSignal.any([init.signal, timeout]) : timeout,
      });
      request.on('error', (error) =>
        reject(
          new Error(
            (timeout.aborted ? `no answer within ${timeoutMs / 1000} s` : error.message) + proxyHint(input),
            { cause: error },
          ),
        ),
      );
      request.on('response', (response) => {
        const chunks: Buffer[] = [];
        let size = 0;
        response.on('data', (chunk: Buffer) => {
          size += chunk.length;
          if (size > maxReplyBytes) response.destroy(new Error('the reply is too large'));
          else chunks.push(chunk);
        });
        response.on('error', reject);
        response.on('end', () => {
          const status = response.statusCode ?? 0;
          const text = Buffer.concat(chunks).toString();
          resolve({ ok: status >= 200 && status < 300, status, text: async () => text });
        });
      });
      request.end(body);
    });
  }
  return send as unknown as typeof fetch;
}
