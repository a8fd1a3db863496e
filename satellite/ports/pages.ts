import { createHash } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Problem } from '@cde/api/problem.ts';

const style =
  'body{font:16px/1.5 system-ui,sans-serif;max-width:38em;margin:12vh auto;padding:0 1.5em;color:#182120;background:#fff}code{color:#57635f}@media(prefers-color-scheme:dark){body{color:#e3eae8;background:#101414}}';

/** No scripts, no external resources, no framing. */
const policy = `default-src 'none'; style-src 'sha256-${createHash('sha256').update(style).digest('base64')}'; frame-ancestors 'none'; sandbox`;

const escapeHtml = (text: string) =>
  text.replace(/[&<>"']/g, (character) => `&#${character.codePointAt(0)};`);

/** True for page loads, as opposed to requests of programs. */
const acceptsHtml = (request: IncomingMessage) =>
  request.method === 'GET' && /\btext\/html\b/.test(request.headers.accept ?? '');

/** Responds with an HTML page to browsers and with the API's error JSON otherwise. */
export function sendProblem(
  request: IncomingMessage,
  response: ServerResponse,
  problem: Problem,
  requestId: string,
): void {
  if (response.headersSent) return void response.destroy();
  const body = problem.toBody(requestId);
  const page = acceptsHtml(request);
  // The rest of the body would be parsed as the next request.
  if (!request.complete) response.shouldKeepAlive = false;
  response.writeHead(problem.status, {
    'content-type': page ? 'text/html; charset=utf-8' : 'application/json',
    'cache-control': 'no-store',
    'referrer-policy': 'no-referrer',
    'x-content-type-options': 'nosniff',
    'x-request-id': requestId,
    'content-security-policy': policy,
    ...(problem.retryAfter && { 'retry-after': String(problem.retryAfter) }),
  });
  if (!page) return void response.end(JSON.stringify(body));
  const lines = [body.detail, body.hint].filter((line) => line !== undefined);
  response.end(
    `<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>${escapeHtml(body.message)}</title><style>${style}</style><h1>${escapeHtml(body.message)}</h1>${lines.map((line) => `<p>${escapeHtml(line)}</p>`).join('')}<p><code>${escapeHtml(body.code)} ${escapeHtml(requestId)}</code></p></html>\n`,
  );
}

/** A redirect that is not cached and sends no referrer. */
export function sendRedirect(
  request: IncomingMessage,
  response: ServerResponse,
  location: string,
  cookies: string[] = [],
): void {
  if (!request.complete) response.shouldKeepAlive = false;
  response.writeHead(302, {
    location,
    'cache-control': 'no-store',
    'referrer-policy': 'no-referrer',
    ...(cookies.length > 0 && { 'set-cookie': cookies }),
  });
  response.end();
}
