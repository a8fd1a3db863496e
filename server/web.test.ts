import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import Fastify, { type FastifyInstance } from 'fastify';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { contentSecurityPolicy, webPlugin } from './web.ts';

let folder: string;
let app: FastifyInstance;
const html = { accept: 'text/html,application/xhtml+xml,*/*;q=0.8' };

async function serve(
  from: string,
  satellites: () => Promise<{ url: string }[]> = async () => [],
): Promise<FastifyInstance> {
  const instance = Fastify();
  instance.setNotFoundHandler((_request, reply) => reply.code(404).send({ code: 'route-not-found' }));
  instance.get('/api/v1/known', async () => ({ known: true }));
  await instance.register(webPlugin, { folder: from, satellites });
  return instance;
}

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'cde-web-'));
  mkdirSync(join(folder, 'assets'));
  writeFileSync(join(folder, 'index.html'), '<title>cde</title>');
  writeFileSync(join(folder, 'favicon.svg'), '<svg/>');
  writeFileSync(join(folder, '.inputs'), 'a hash');
  writeFileSync(join(folder, 'assets', 'index-abc.js'), 'plain');
  writeFileSync(join(folder, 'assets', 'index-abc.js.br'), 'brotli');
  app = await serve(folder);
});
afterAll(async () => {
  await app.close();
  rmSync(folder, { recursive: true, force: true });
});

test.each([
  '/',
  '/workspaces/ada/web',
  '/sign-in',
  '/tokens?x=1',
  '/apiary',
  '/.inputs',
])('%s is the dashboard, under the policy', async (url) => {
  const reply = await app.inject({ url, headers: html });
  expect(reply.statusCode).toBe(200);
  expect(reply.body).toBe('<title>cde</title>');
  expect(reply.headers).toMatchObject({
    'content-type': 'text/html; charset=utf-8',
    'content-security-policy': contentSecurityPolicy,
    'x-content-type-options': 'nosniff',
    'referrer-policy': 'no-referrer',
    'cache-control': 'no-cache',
  });
});

test('an unchanged page is answered with 304', async () => {
  const first = await app.inject({ url: '/workspaces', headers: html });
  const again = await app.inject({
    url: '/tokens',
    headers: { ...html, 'if-none-match': String(first.headers.etag) },
  });
  expect(again.statusCode).toBe(304);
  expect(again.body).toBe('');
});

test.each([
  '/api/v1/nothing',
  '/api',
  '/relay/x',
  '/metrics',
  '/healthz',
  '/assets/gone.js',
])('%s is not a page', async (url) => {
  expect((await app.inject({ url, headers: html })).statusCode).toBe(404);
});

test('requests that do not accept HTML get no page', async () => {
  expect((await app.inject({ url: '/workspaces', headers: { accept: 'application/json' } })).statusCode).toBe(
    404,
  );
  expect((await app.inject({ method: 'POST', url: '/workspaces', headers: html })).statusCode).toBe(404);
  expect((await app.inject({ url: '/api/v1/known' })).json()).toEqual({ known: true });
});

test('assets are cached permanently and precompressed', async () => {
  const reply = await app.inject({
    url: '/assets/index-abc.js',
    headers: { 'accept-encoding': 'gzip, br' },
  });
  expect(reply.body).toBe('brotli');
  expect(reply.headers).toMatchObject({
    'content-encoding': 'br',
    'cache-control': 'public, max-age=31536000, immutable',
    'content-security-policy': contentSecurityPolicy,
  });
  expect(reply.headers['content-type']).toMatch(/javascript/);
  expect((await app.inject({ url: '/assets/index-abc.js' })).body).toBe('plain');
});

test.each([
  '/assets/..%2f.inputs',
  '/assets/%2e%2e/.inputs',
  '/assets/../.inputs',
])('%s does not leave the folder', async (url) => {
  const reply = await app.inject({ url, headers: html });
  expect(reply.body).not.toContain('a hash');
});

test('the policy forbids inline code and other origins', () => {
  expect(contentSecurityPolicy).not.toMatch(/unsafe|\*|https?:/);
});

test('pages can open terminals only at satellites that serve web', async () => {
  const urls = [
    'https://tokyo.example.com/behind/a/path',
    'http://10.1.2.3:7090',
    // Satellites report their own URL.
    'https://*',
    'https://*.example.com',
    'https://x;form-action',
    'https://[::1]:7090',
  ];
  const instance = await serve(folder, async () => urls.map((url) => ({ url })));
  const reply = await instance.inject({ url: '/', headers: html });
  expect(reply.headers['content-security-policy']).toBe(
    contentSecurityPolicy.replace(
      "connect-src 'self'",
      "connect-src 'self' https://tokyo.example.com wss://tokyo.example.com http://10.1.2.3:7090 ws://10.1.2.3:7090",
    ),
  );
  // The policy of the page has changed.
  const known = await app.inject({ url: '/', headers: html });
  const headers = { ...html, 'if-none-match': String(known.headers.etag) };
  expect((await instance.inject({ url: '/', headers })).statusCode).toBe(200);
  await instance.close();
});

test('pages load while the database is unreachable', async () => {
  const instance = await serve(folder, async () => {
    throw new Error('away');
  });
  const reply = await instance.inject({ url: '/', headers: html });
  expect(reply.statusCode).toBe(200);
  expect(reply.headers['content-security-policy']).toBe(contentSecurityPolicy);
  await instance.close();
});

test('without a build, pages explain how to build the dashboard', async () => {
  const bare = await serve(join(folder, 'nothing-here'));
  const reply = await bare.inject({ url: '/', headers: html });
  expect(reply.statusCode).toBe(503);
  expect(reply.body).toContain('node scripts/build-web.mjs');
  await bare.close();
});
