import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import fastifyStatic from '@fastify/static';
import type { FastifyReply, FastifyRequest } from 'fastify';
import fp from 'fastify-plugin';

/**
 * The policy of every dashboard page. Without inline scripts and other origins, a script injected through a workspace
 * name or a log line neither runs nor sends data anywhere.
 */
export const contentSecurityPolicy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' data:",
  "font-src 'self'",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'self'",
  "frame-ancestors 'none'",
].join('; ');

/**
 * The policy of pages that also open terminals at these satellites, by http and WebSocket. Satellites report their own
 * URL, so anything that could match more than one host is dropped.
 */
function makePagePolicy(satellites: readonly { url: string }[]): string {
  const origins = satellites
    .map(({ url }) => new URL(url).origin)
    .filter((origin) => /^https?:\/\/[a-z0-9-]+(\.[a-z0-9-]+)*(:\d+)?$/.test(origin))
    .flatMap((origin) => [origin, origin.replace(/^http/, 'ws')]);
  return contentSecurityPolicy.replace("connect-src 'self'", ["connect-src 'self'", ...origins].join(' '));
}

/**
 * The policy of the API reference: additionally allows the <style> that swagger-ui's bundle adds, by its hash.
 * (`npm run test:browser` fails when a newer bundle adds another.)
 */
export const docsPolicy = contentSecurityPolicy.replace(
  "style-src 'self'",
  "style-src 'self' 'sha256-RL3ie0nH+Lzz2YNqQN83mnU0J1ot4QL7b99vMdIX99w='",
);

/**
 * Not by @fastify/helmet: the policy changes while the server runs and is part of each page's ETag, the API reference has its
 * own, helmet knows no permissions-policy, and its other headers would all have to be turned off.
 */
const headers = {
  'content-security-policy': contentSecurityPolicy,
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
  // The code of a one-time link is behind `#`, which is never in a referrer; this covers the rest of the path.
  'referrer-policy': 'no-referrer',
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  'permissions-policy': 'camera=(), geolocation=(), microphone=(), payment=(), usb=()',
} as const;

/** How long the list of satellites is cached, so that page loads do not query the database. */
const satelliteTtlMs = 5_000;
/** How long a page load waits for that list. */
const satelliteTimeoutMs = 1_000;

/** First path segments of the API: unknown paths below them return an API error instead of the dashboard. */
const apiPrefixes = new Set(['api', 'relay', 'healthz', 'readyz', 'metrics', 'assets']);

/**
 * Serves the built dashboard: hashed assets that are cached permanently (compressed by scripts/build-web.mjs), and
 * index.html for every other path that a browser opens.
 * `satellites` are those where pages can open terminals. `folder` is the output of `vite build`; without an index.html there, pages explain how to build it.
 */
export const webPlugin = fp<{ folder: string; satellites: () => Promise<{ url: string }[]> }>(
  async (app, { folder, satellites }) => {
    const index = join(folder, 'index.html');
    const built = existsSync(index);
    const html = built ? readFileSync(index) : Buffer.from(notBuiltPage);
    const policy = cachePolicy(satellites);

    const page = async (request: FastifyRequest, reply: FastifyReply) => {
      const [path = ''] = request.url.split('?', 1);
      const accepts = request.headers.accept ?? '*/*';
      if (apiPrefixes.has(path.split('/')[1] ?? '') || !/text\/html|\*\/\*/.test(accepts))
        return reply.callNotFound();
      // Revalidated on every visit because it references the hashed assets; a 304 if page and policy are unchanged.
      const now = await policy();
      const etag = `"${createHash('sha256').update(html).update(now).digest('base64url').slice(0, 22)}"`;
      reply.headers({ ...headers, 'content-security-policy': now, 'cache-control': 'no-cache', etag });
      if (request.headers['if-none-match'] === etag) return reply.code(304).send();
      return reply
        .code(built ? 200 : 503)
        .type('text/html; charset=utf-8')
        .send(html);
    };
    app.get('/', { schema: { hide: true } }, page);
    app.get('/*', { schema: { hide: true } }, page);

    if (!built) return;
    await app.register(fastifyStatic, {
      root: join(folder, 'assets'),
      prefix: '/assets/',
      decorateReply: false,
      schemaHide: true,
      index: false,
      immutable: true,
      maxAge: '365d',
      preCompressed: true,
      setHeaders: (reply) => reply.headers(headers),
    });
    const icon = readFileSync(join(folder, 'favicon.svg'));
    app.get('/favicon.svg', { schema: { hide: true } }, (_request, reply) =>
      reply
        .headers({ ...headers, 'cache-control': 'public, max-age=86400' })
        .type('image/svg+xml')
        .send(icon),
    );
  },
  { name: 'web' },
);

/** Caches the page policy. While the database is unreachable the last policy is used, so that pages still load. */
function cachePolicy(satellites: () => Promise<{ url: string }[]>): () => Promise<string> {
  let known = contentSecurityPolicy;
  let asked = { until: 0, policy: Promise.resolve(known) };
  async function ask(): Promise<string> {
    const late = setTimeout(satelliteTimeoutMs, null, { ref: false });
    const found = await Promise.race([satellites().catch(() => null), late]);
    if (found) known = makePagePolicy(found);
    return known;
  }
  return () => {
    const now = performance.now();
    if (now >= asked.until) asked = { until: now + satelliteTtlMs, policy: ask() };
    return asked.policy;
  };
}

const notBuiltPage = `<!doctype html><html lang="en"><meta charset="utf-8"><title>cde</title>
<h1>The dashboard is not built yet</h1>
<p>The server is running, and the <code>cde</code> command works. To build the dashboard, run
<code>node scripts/build-web.mjs</code> in the repository and restart the server. <code>npm start</code> does both.</p></html>
`;
