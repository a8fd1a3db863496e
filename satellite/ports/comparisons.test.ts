import { once } from 'node:events';
import {
  createServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  request as makeRequest,
} from 'node:http';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Visit } from './headers.ts';
import { listen, makeTestProxy, stop } from './testing.ts';

/**
 * The checks of frameworks against their own host, modelled by small servers behind the real proxy. The port's own page
 * must pass every check, other pages must fail. tests/frameworks uses the frameworks themselves.
 */
type Headers = IncomingHttpHeaders;
const first = (value: string | string[] | undefined) => [value].flat()[0]?.split(',')[0]?.trim();
const hostOf = (url: string | undefined) => (url && URL.canParse(url) ? new URL(url).host : undefined);
const nameOf = (host: string | undefined) => hostOf(`http://${host ?? '-'}`)?.replace(/:\d+$/, '');
const isLoopback = (name: string | undefined) =>
  name !== undefined && (/(^|\.)localhost$/.test(name) || /^(127\.0\.0\.1|\[::1\])$/.test(name));
const forwardedHost = (headers: Headers) =>
  /host=([^;,]+)/i.exec(first(headers.forwarded) ?? '')?.[1] ??
  first(headers['x-forwarded-host']) ??
  headers.host;
const forwardedBase = (headers: Headers) =>
  `${first(headers['x-forwarded-proto']) ?? 'http'}://${first(headers['x-forwarded-host']) ?? headers.host}`;

/** How each framework decides, with its default settings, whether a request comes from its own page. */
const comparisons: Record<string, (headers: Headers) => boolean> = {
  'Django: ALLOWED_HOSTS, then Origin against its scheme and Host': ({
    host,
    origin,
    'x-forwarded-host': _,
  }) => isLoopback(nameOf(host)) && origin === `http://${host}`,
  'Rails: permitted hosts, then Origin against the base URL': (headers) =>
    nameOf(first(headers['x-forwarded-host']) ?? headers.host) === 'localhost' &&
    headers.origin === forwardedBase(headers),
  'code-server: Origin against the forwarded host': (headers) =>
    hostOf(headers.origin) === forwardedHost(headers),
  'Jupyter: Origin against Host': ({ origin, host }) => hostOf(origin) === host,
  'webpack-dev-server: known names, and the same one in Origin and Host': ({ origin, host }) =>
    isLoopback(nameOf(host)) && isLoopback(nameOf(hostOf(origin))) && nameOf(host) === nameOf(hostOf(origin)),
  'Vite: known names; CORS for localhost': ({ origin, host }) =>
    isLoopback(nameOf(host)) && isLoopback(nameOf(hostOf(origin))),
  'Next, server actions: Origin against the forwarded host': (headers) =>
    hostOf(headers.origin) === (first(headers['x-forwarded-host']) ?? headers.host),
  'Next, development assets: not cross-site, Origin is localhost': ({ origin, ...headers }) =>
    headers['sec-fetch-site'] !== 'cross-site' && isLoopback(nameOf(hostOf(origin))),
  'Express with trust proxy: Origin against protocol and host': (headers) =>
    headers.origin === forwardedBase(headers),
  'Spring: Origin against scheme, host and port': (headers) => headers.origin === forwardedBase(headers),
  'Go: Sec-Fetch-Site, else Origin against Host': ({ origin, host, ...headers }) =>
    headers['sec-fetch-site'] === undefined
      ? hostOf(origin) === host
      : ['same-origin', 'none'].includes(String(headers['sec-fetch-site'])),
  'Streamlit: Origin is a name of this machine': ({ origin }) => nameOf(hostOf(origin)) === 'localhost',
};

let program: ReturnType<typeof createServer>;
let programPort: number;
let proxy: Awaited<ReturnType<typeof makeTestProxy>>;
let visit: Omit<Visit, 'clientIp' | 'port'>;
let last: Headers;

beforeAll(async () => {
  program = createServer((request, response) => {
    last = request.headers;
    const { origin, host } = request.headers;
    if (request.url === '/redirect') response.setHeader('location', `${forwardedBase(last)}/there`);
    if (request.url === '/cors' && origin) response.setHeader('access-control-allow-origin', origin);
    if (request.url === '/named') {
      response.setHeader('content-location', `http://${host}/it`);
      response.setHeader('refresh', `1; url=http://${host}/next`);
      response.setHeader('link', `<http://${host}/?page=2>; rel="next"`);
      response.setHeader('set-cookie', `a=1; Domain=localhost; Path=/`);
    }
    response.writeHead(request.url === '/redirect' ? 302 : 200, { 'content-type': 'application/json' });
    response.end(judgements(request));
  });
  program.on('upgrade', (request: IncomingMessage, socket) => {
    last = request.headers;
    const body = judgements(request);
    socket.end(`HTTP/1.1 403 Forbidden\r\ncontent-length: ${body.length}\r\n\r\n${body}`);
  });
  programPort = await listen(program);
  proxy = await makeTestProxy({ programPort: () => programPort, visit: () => visit });
});
afterAll(() => {
  proxy.close();
  stop(program);
});

const judgements = ({ headers }: IncomingMessage) =>
  JSON.stringify(
    Object.fromEntries(Object.entries(comparisons).map(([name, passes]) => [name, passes(headers)])),
  );
async function send(path: string, headers: Record<string, string>, method = 'POST') {
  const asked = makeRequest({ port: proxy.port, path, method, headers });
  asked.end();
  const [reply] = (await once(asked, 'response')) as [IncomingMessage];
  let text = '';
  for await (const piece of reply) text += piece;
  return { status: reply.statusCode, headers: reply.headers, verdicts: text ? JSON.parse(text) : {} };
}
const handshake = {
  connection: 'Upgrade',
  upgrade: 'websocket',
  'sec-websocket-version': '13',
  'sec-websocket-key': 'x3JJHMbDL1EzLkh9GBhXDw==',
};
const all = (verdict: boolean) => Object.fromEntries(Object.keys(comparisons).map((name) => [name, verdict]));

/** For each way of serving: the visit, and the requests of the port's own page and of other pages. */
const prefix = '/@ada/web/ports/3000/~cde.PASS';
const ways = () => {
  const https = `https://${programPort}--web--ada.dev.example.com`;
  const http = `http://${programPort}--web--ada.dev.example.com:7484`;
  const own = { 'sec-fetch-site': 'same-origin', 'sec-fetch-mode': 'cors' };
  const evil = { 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'cors', origin: 'https://evil.example' };
  const siblingOf = (origin: string) => ({ ...evil, origin: origin.replace('web', 'other') });
  return {
    'by name over https': {
      visit: { origin: https, prefix: null, isPublic: true },
      own: { ...own, origin: https, referer: `${https}/page` },
      foreign: [
        evil,
        siblingOf(https),
        { ...evil, origin: 'null' },
        { ...evil, origin: https.replace('s:', ':') },
      ],
    },
    'by name over http': {
      visit: { origin: http, prefix: null, isPublic: true },
      own: { ...own, origin: http, referer: `${http}/page` },
      foreign: [evil, siblingOf(http), { ...evil, origin: 'null' }],
    },
    'by path': {
      visit: { origin: 'https://cde.example.com', prefix, hasPass: true, isPublic: true },
      own: { 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'cors', origin: 'null' },
      foreign: [evil, { ...evil, origin: 'https://cde.example.com' }],
    },
    'by path, without a pass': {
      visit: {
        origin: 'https://cde.example.com',
        prefix: '/@ada/web/ports/3000',
        hasPass: false,
        isPublic: true,
      },
      own: null,
      foreign: [evil, { ...evil, origin: 'null' }],
    },
  } as const;
};
const names = ['by name over https', 'by name over http', 'by path', 'by path, without a pass'] as const;

describe.each(names)('%s', (name) => {
  beforeAll(() => {
    visit = ways()[name].visit;
  });

  test('its own page passes every check, by POST and by WebSocket', async () => {
    const { own } = ways()[name];
    if (!own) return;
    expect((await send('/', own)).verdicts).toEqual(all(true));
    expect((await send('/', { ...own, ...handshake }, 'GET')).verdicts).toEqual(all(true));
  });

  test('another page fails every check, whatever else it claims', async () => {
    for (const foreign of ways()[name].foreign) {
      const claims = {
        'x-forwarded-host': new URL(foreign.origin === 'null' ? 'http://evil' : foreign.origin).host,
        'x-forwarded-proto': 'https',
        forwarded: 'host=evil.example;proto=https',
        'x-original-host': 'evil.example',
        x_forwarded_host: 'evil.example',
      };
      expect((await send('/', foreign)).verdicts, foreign.origin).toEqual(all(false));
      expect((await send('/', { ...foreign, ...claims })).verdicts, foreign.origin).toEqual(all(false));
      expect((await send('/', { ...foreign, ...handshake }, 'GET')).verdicts, foreign.origin).toEqual(
        all(false),
      );
    }
  });

  test('a redirect to its own absolute address leads back through the proxy', async () => {
    const { visit } = ways()[name];
    const { headers } = await send('/redirect', {}, 'GET');
    expect(headers.location).toBe(visit.prefix === null ? `${visit.origin}/there` : `${visit.prefix}/there`);
  });

  test('the public address is in headers that no framework checks', async () => {
    const { visit } = ways()[name];
    await send('/', {}, 'GET');
    const { host, protocol } = new URL(visit.origin);
    expect(last).toMatchObject({
      host: `localhost:${programPort}`,
      'x-original-host': host,
      'x-original-proto': protocol.slice(0, -1),
    });
    for (const absent of ['x-forwarded-host', 'x-forwarded-proto', 'x-forwarded-port', 'forwarded'])
      expect(last).not.toHaveProperty(absent);
  });
});

describe('by name', () => {
  beforeAll(() => {
    visit = ways()['by name over https'].visit;
  });

  test('CORS: a program that allows its front end by its local address allows its public one', async () => {
    const frontEnd = 'https://5173--web--ada.dev.example.com';
    const { headers } = await send('/cors', { origin: frontEnd, 'sec-fetch-site': 'same-site' });
    expect(last.origin).toBe('http://localhost:5173');
    expect(headers['access-control-allow-origin']).toBe(frontEnd);
    const foreign = await send('/cors', { origin: 'https://evil.example' });
    expect(last.origin).toBe('https://evil.example');
    expect(foreign.headers['access-control-allow-origin']).toBe('https://evil.example');
  });

  test("the other headers that contain the program's own address", async () => {
    const { origin } = visit;
    const { headers } = await send('/named', { referer: `${origin}/page?q` }, 'GET');
    expect(last.referer).toBe(`http://localhost:${programPort}/page?q`);
    expect(headers).toMatchObject({
      'content-location': `${origin}/it`,
      refresh: `1; url=${origin}/next`,
      link: `<${origin}/?page=2>; rel="next"`,
      'set-cookie': ['a=1; Path=/'],
    });
  });
});
