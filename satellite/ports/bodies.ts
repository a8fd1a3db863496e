import type { ClientRequest, IncomingMessage, ServerResponse } from 'node:http';
import { Problem } from '@cde/api/problem.ts';

/** Minimum rate of a request body. A phone on a bad network exceeds it; anything slower only blocks a connection. */
export interface BodyRate {
  windowMs: number;
  minBytes: number;
}
export const defaultBodyRate: BodyRate = { windowMs: 10_000, minBytes: 10 * 1024 };

export const hasBody = ({ headers }: IncomingMessage): boolean =>
  headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0;

/** Rejects ambiguous framing, which a program could parse differently: part of the body would become a request. */
export function checkFraming(request: IncomingMessage, response: ServerResponse): void {
  const { 'transfer-encoding': encoding, 'content-length': length } = request.headers;
  if (encoding === undefined || (encoding.toLowerCase() === 'chunked' && length === undefined)) return;
  response.shouldKeepAlive = false;
  throw new Problem('bad-request', 'The framing of the request body is not supported.', {
    hint: 'Send either Transfer-Encoding: chunked or a Content-Length.',
  });
}

/** Calls `onSlow` if too few bytes arrive in a window although the program reads them. Returns a function that stops it. */
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
    const received = socket.bytesRead - read;
    read = socket.bytesRead;
    if (received >= minBytes || forwarded.writableNeedDrain) return;
    clearInterval(timer);
    onSlow(
      new Problem('request-too-slow', 'The request body arrived too slowly.', {
        detail: `${received} bytes in ${windowMs / 1000} seconds; the minimum is ${minBytes}.`,
        hint: 'Try again over a faster connection.',
      }),
    );
  }, windowMs);
  return () => clearInterval(timer);
}
