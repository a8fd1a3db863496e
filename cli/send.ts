import { type IncomingMessage, request as requestHttp } from 'node:http';
import { request as requestHttps } from 'node:https';
import { CallError } from '@cde/api/client.ts';
import { proxyAgent, proxyHint } from '@cde/tunnel/network/proxy.ts';

/** What a request came back with; the part of `Response` that the typed client looks at. */
export interface Reply {
  status: number;
  ok: boolean;
  text: string;
  /** By its name in lower case. */
  header(name: string): string | undefined;
  /** Each Set-Cookie. */
  cookies: string[];
}

/** Longer than any request of ours is held open (20 s), shorter than a person waits on a connection that is dead. */
const silenceMs = 45_000;

/** Ten times the largest page that a server gives; a hostile one must not fill this machine's memory. */
const maxReplyBytes = 32 * 1024 * 1024;

/** Made once, so that connections are kept. */
let agent: ReturnType<typeof proxyAgent>;

/**
 * One request, by node:http: ssh's path loads that anyway (for WebSockets), and global `fetch` would add 10 ms
 * of its own to every connection. Redirects are not followed, so that a token goes nowhere else.
 */
export function send(
  url: string,
  init: { method: string; headers: Record<string, string>; body?: string; signal: AbortSignal },
): Promise<Reply> {
  const { method, headers, body, signal } = init;
  return new Promise((resolve, reject) => {
    const isHttps = url.startsWith('https:');
    if (isHttps) agent ??= proxyAgent({ keepAlive: true });
    const begin = isHttps ? requestHttps : requestHttp;
    const settings = { method, headers, signal, timeout: silenceMs, ...(isHttps && agent && { agent }) };
    const outgoing = begin(url, settings, (incoming) => {
      read(incoming).then(resolve, reject);
    });
    outgoing.once('timeout', () =>
      outgoing.destroy(Object.assign(new Error(`silence for ${silenceMs / 1000} s`), { code: 'ETIMEDOUT' })),
    );
    outgoing.once('error', (error) => {
      error.message += proxyHint(url);
      reject(error);
    });
    outgoing.end(body);
  });
}

async function read(incoming: IncomingMessage): Promise<Reply> {
  const chunks: Buffer[] = [];
  let size = Number(incoming.headers['content-length'] ?? 0) > maxReplyBytes ? Number.POSITIVE_INFINITY : 0;
  for await (const chunk of incoming) {
    size += (chunk as Buffer).length;
    // Leaving the loop ends the connection.
    if (size > maxReplyBytes) throw tooLarge();
    chunks.push(chunk as Buffer);
  }
  const status = incoming.statusCode!;
  return {
    ...makeReply(status, Buffer.concat(chunks).toString('utf8')),
    header: (name) => incoming.headers[name]?.toString(),
    cookies: incoming.headers['set-cookie'] ?? [],
  };
}

function tooLarge(): CallError {
  return new CallError(0, {
    code: 'reply-too-large',
    message: `The server's reply is larger than ${maxReplyBytes / 1024 / 1024} MiB, so it was not read.`,
    hint: 'Check the address of the server: no reply of a cde server is that large.',
  });
}

/** A reply without headers. */
export function makeReply(status: number, text: string): Reply {
  return { status, ok: status >= 200 && status < 300, text, header: () => undefined, cookies: [] };
}
