import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import fastifyStatic from '@fastify/static';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';

/**
 * Of every page of the dashboard. Nothing inline, nothing from elsewhere: a script that gets into a page
 * by a workspace's name or a log line does not run, and could not call home.
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
 * The policy of a page that may also open terminals at these satellites: their addresses by http and by WebSocket.
 * A satellite says itself where it is: nothing passes that could be more than one host.
 */
export function makePagePolicy(satellites: readonly { url: string }[]): string {
  const origins = satellites
    .map(({ url }) => new URL(url).origin)
    .filter((origin) => /^https?:\/\/[a-z0-9-]+(\.[a-z0-9-]+)*(:\d+)?$/.test(origin))
    .flatMap((origin) => [origin, origin.replace(/^http/, 'ws')]);
  return contentSecurityPolicy.replace("connect-src 'self'", ["connect-src 'self'", ...origins].join(' '));
}

/**
 * Of the API reference: the same, but for the one <style> that swagger-ui's bundle writes, named by its
 * hash. (`npm run test:browser` tells when a newer bundle writes another.)
 */
export const docsPolicy = contentSecurityPolicy.replace(
  "style-src 'self'",
  "style-src 'self' 'sha256-RL3ie0nH+Lzz2YNqQN83mnU0J1ot4QL7b99vMdIX99w='",
);

const headers = {
  'content-security-policy': contentSecurityPolicy,
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
  // One-time links carry their code behind `#`, which no referrer holds; this is for the rest of the path.
  'referrer-policy': 'no-referrer',
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  'permissions-policy': 'camera=(), geolocation=(), microphone=(), payment=(), usb=()',
} as const;

/** How old the list of satellites may be: whoever opens pages all day asks the database no more for it. */
const satelliteTtlMs = 5_000;
/** How long a page waits for that list. */
const satelliteTimeoutMs = 1_000;

/** First parts of a path that belong to programs: what is unknown there answers as the API does. */
const apiPrefixes = new Set(['api', 'relay', 'healthz', 'readyz', 'metrics', 'assets']);

/**
 * Serves the built dashboard: hashed assets to be cached for ever (compressed beforehand by
 * scripts/build-web.mjs), and index.html for every other path that a browser opens.
 * `folder`: where `vite build` left it; without an index.html there, pages say how to build it.
 * `satellites`: those at which pages may open terminals.
 */
export async function registerWeb(
  app: FastifyInstance,
  { folder, satellites }: { folder: string; satellites: () => Promise<{ url: string }[]> },
): Promise<void> {
  const index = join(folder, 'index.html');
  const built = existsSync(index);
  const html = built ? readFileSync(index) : Buffer.from(notBuiltPage);
  const policy = cachePolicy(satellites);

  const page = async (request: FastifyRequest, reply: FastifyReply) => {
    const [path = ''] = request.url.split('?', 1);
    const accepts = request.headers.accept ?? '*/*';
    if (apiPrefixes.has(path.split('/')[1] ?? '') || !/text\/html|\*\/\*/.test(accepts))
      return reply.callNotFound();
    // Asked for again on each visit (it names the hashed assets), answered in a few bytes when it and its policy
    // are unchanged.
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
}

/** The pages' policy of the moment. Where the database is away it is the last one: pages load all the same. */
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
<p>The server runs, and the <code>cde</code> command works. To build the dashboard, run
<code>node scripts/build-web.mjs</code> in the repository and start the server again; <code>npm start</code> does it by itself.</p></html>
`;
