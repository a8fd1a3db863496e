import type { ClientRequest, IncomingMessage, ServerResponse } from 'node:http';
import { Problem } from '@cde/api/problem.ts';

/** How fast a body must come: a phone on a bad network sends more, and whoever sends less only holds a connection. */
export interface BodyRate {
  windowMs: number;
  minBytes: number;
}
export const defaultBodyRate: BodyRate = { windowMs: 10_000, minBytes: 10 * 1024 };

export const hasBody = ({ headers }: IncomingMessage): boolean =>
  headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0;

/** Refuses framing that a program could read in another way than we have: what we took for a body would be a request. */
export function checkFraming(request: IncomingMessage, response: ServerResponse): void {
  const { 'transfer-encoding': encoding, 'content-length': length } = request.headers;
  if (encoding === undefined || (encoding.toLowerCase() === 'chunked' && length === undefined)) return;
  response.shouldKeepAlive = false;
  throw new Problem('bad-request', 'This request frames its body in a way that is not passed on.', {
    hint: 'Send Transfer-Encoding: chunked, or a Content-Length.',
  });
}

/** Calls `onSlow` when a window passes in which too little came, though the program would have taken it. Returns what ends it. */
export function watchBody(
  request: IncomingMessage,
  forwarded: ClientRequest,
  { windowMs, minBytes }: BodyRate,
  onSlow: (problem: Problem) => void,
): () => void {
  const { socket } = request;
  let read = socket.bytesRead;
  const timer = setInterval(() => {
    if (request.complete) return clearInterval(timer);
    const came = socket.bytesRead - read;
    read = socket.bytesRead;
    if (came >= minBytes || forwarded.writableNeedDrain) return;
    clearInterval(timer);
    onSlow(
      new Problem('request-too-slow', 'The body of this request came too slowly.', {
        detail: `${came} bytes in ${windowMs / 1000} seconds; at least ${minBytes} are expected.`,
        hint: 'Send it again over a faster connection.',
      }),
    );
  }, windowMs);
  return () => clearInterval(timer);
}
