import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';
import type { RequestOptions } from 'node:https';

// Not imported: an import evaluates every export of node:http, and one of them (WebSocket) loads all of undici.
const { request: requestHttp } = process.getBuiltinModule('node:http');

/** A whole reply, whatever its status. */
export interface HttpReply {
  status: number;
  /** By their names in lower case. */
  headers: IncomingHttpHeaders;
  text: string;
}

/** The reply was larger than `maxReplyBytes`, so it was not read to its end. */
export class ReplyTooLarge extends Error {
  constructor(maxReplyBytes: number) {
    super(`the reply is larger than ${maxReplyBytes / 1024 / 1024} MiB`);
    this.name = 'ReplyTooLarge';
  }
}

interface Options extends Pick<RequestOptions, 'agent' | 'ca' | 'signal'> {
  method: string;
  headers?: Record<string, string>;
  body?: string | undefined;
  /** A hostile or wrong server must not fill the memory of this process. */
  maxReplyBytes: number;
  /** How long the connection may be silent. A deadline for everything is the signal's. */
  silenceMs?: number;
}

/**
 * Sends one request by node:http and reads the reply, for programs that start often or run in every workspace: Node's
 * `fetch` takes 10 to 30 ms of their start and 10 MB. `target` is a URL, or a path behind a Unix socket. Redirects are
 * not followed, so that a token goes nowhere else. Rejects with the connection's error, or with ReplyTooLarge.
 */
export function sendRequest(
  target: string | URL | { socketPath: string; path: string },
  { body, maxReplyBytes, silenceMs, ...options }: Options,
): Promise<HttpReply> {
  return new Promise((resolve, reject) => {
    const settings = { ...options, ...(silenceMs !== undefined && { timeout: silenceMs }) };
    const onReply = (reply: IncomingMessage) => readReply(reply, maxReplyBytes).then(resolve, reject);
    const request = begin(target, settings, onReply);
    request.once('timeout', () =>
      request.destroy(Object.assign(new Error(`silence for ${silenceMs! / 1000} s`), { code: 'ETIMEDOUT' })),
    );
    request.on('error', reject);
    request.end(body);
  });
}

function begin(
  target: string | URL | { socketPath: string; path: string },
  settings: RequestOptions,
  onReply: (reply: IncomingMessage) => void,
) {
  if (typeof target === 'object' && 'socketPath' in target)
    return requestHttp({ ...settings, ...target }, onReply);
  const url = new URL(target);
  if (url.protocol !== 'https:') return requestHttp(url, settings, onReply);
  return process.getBuiltinModule('node:https').request(url, settings, onReply);
}

async function readReply(reply: IncomingMessage, maxReplyBytes: number): Promise<HttpReply> {
  if (Number(reply.headers['content-length'] ?? 0) > maxReplyBytes) {
    reply.destroy();
    throw new ReplyTooLarge(maxReplyBytes);
  }
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of reply) {
    size += (chunk as Buffer).length;
    // Leaving the loop ends the connection.
    if (size > maxReplyBytes) throw new ReplyTooLarge(maxReplyBytes);
    chunks.push(chunk as Buffer);
  }
  return { status: reply.statusCode!, headers: reply.headers, text: Buffer.concat(chunks).toString('utf8') };
}
