import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer as createHttp, type RequestListener } from 'node:http';
import { createServer as createHttps, request as httpsRequest } from 'node:https';
import { type AddressInfo, connect, createServer as createTcp, type Server } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { afterEach, beforeAll, describe, expect, test } from 'vitest';
import { checkDns } from './dns-check.ts';
import { checkEndpoint } from './endpoint-check.ts';
import { checkMtu } from './mtu-check.ts';
import { netcheck } from './netcheck.ts';
import { type Authority, makeAuthority } from './testing-authority.ts';

/** What networks do to HTTPS and DNS, by real servers on loopback. */
const { signal } = new AbortController();
const closers: (() => void)[] = [];
afterEach(() => {
  for (const close of closers.splice(0).reverse()) close();
});

let ours: Authority;
let theirs: Authority;
beforeAll(() => {
  ours = makeAuthority('Example Corp');
  theirs = makeAuthority('Middle Box');
});

async function listen(server: Server): Promise<number> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  closers.push(() => {
    server.close();
    (server as Partial<import('node:http').Server>).closeAllConnections?.();
  });
  return (server.address() as AddressInfo).port;
}

const plain = async (answer: RequestListener) => {
  const port = await listen(createHttp(answer));
  return { port, url: `http://127.0.0.1:${port}` };
};
const probe: RequestListener = (_request, response) => void response.writeHead(204).end();

/** A satellite with a certificate of our authority, which it tells as ours do unless it is an earlier release. */
async function satellite({ tells = true } = {}) {
  const server = createHttps(ours.issue(), (request, response) => {
    const { fingerprint256 } = (request.socket as TLSSocket).getX509Certificate()!;
    response.writeHead(204, tells ? { 'cde-certificate': fingerprint256 } : {}).end();
  });
  const port = await listen(server);
  return { port, url: `https://127.0.0.1:${port}` };
}

/** A box that decrypts what passes, with certificates of its own authority. */
async function interceptor(upstream: string, authority: Authority) {
  const server = createHttps(authority.issue(), (request, response) => {
    const on = httpsRequest(new URL(request.url!, upstream), { ca: ours.cert }, (reply) => {
      response.writeHead(reply.statusCode!, reply.headers);
      reply.pipe(response);
    });
    on.end();
  });
  return `https://127.0.0.1:${await listen(server)}`;
}

describe('TLS interception', () => {
  test('none: the certificate is the one that the satellite has', async () => {
    const { url } = await satellite();
    const { tls, status, portal } = await checkEndpoint(url, { signal, ca: ours.cert });
    expect({ status, portal }).toEqual({ status: 204, portal: null });
    expect(tls).toMatchObject({ trust: 'private', intercepted: false, error: null });
    expect(tls!.issuer).toBe('Example Corp, Example Corp Root');
  });

  test('certain if the certificate is not the one that the satellite has, trusted or not', async () => {
    const { url } = await satellite();
    const through = await interceptor(url, theirs);
    const trusted = await checkEndpoint(through, { signal, ca: theirs.cert });
    expect(trusted.tls).toMatchObject({ trust: 'private', intercepted: true });
    expect(trusted.tls!.issuer).toContain('Middle Box');
    const untrusted = await checkEndpoint(through, { signal });
    expect(untrusted.tls).toMatchObject({ trust: 'untrusted', intercepted: true });
    expect(untrusted.tls!.error).toContain('UNABLE_TO_');
  });

  test('a satellite that does not tell: only a known product is certain, and no company is accused', async () => {
    const { url } = await satellite({ tells: false });
    expect((await checkEndpoint(url, { signal, ca: ours.cert })).tls!.intercepted).toBeNull();
    const known = makeAuthority('Zscaler Inc.');
    const through = await interceptor(url, known);
    expect((await checkEndpoint(through, { signal, ca: known.cert })).tls!.intercepted).toBe(true);
  });

  test('in the report, with the issuer', async () => {
    const { url } = await satellite();
    const places = [{ name: 'eu', region: '', url: await interceptor(url, theirs) }];
    const report = await netcheck(places, { signal, ca: theirs.cert });
    expect(report.tlsInterception).toEqual({ intercepted: true, issuer: 'Middle Box, Middle Box Root' });
  });
});

describe('captive portals', () => {
  const login = 'http://login.hotel.example/room';

  test('redirects everything without TLS, and lets nothing else through', async () => {
    const portal = await plain((_request, response) => response.writeHead(302, { location: login }).end());
    const cut = createTcp((socket) => socket.destroy());
    const url = `https://127.0.0.1:${await listen(cut)}`;
    const report = await netcheck([{ name: 'eu', region: '', url }], {
      signal,
      server: url,
      httpPort: portal.port,
    });
    expect(report.captivePortal).toEqual({ location: login });
    expect(report.server).toMatchObject({ status: null, portal: { location: login } });
    // Over plain HTTP it answers in place of the satellite itself.
    expect(await checkEndpoint(portal.url, { signal })).toMatchObject({ portal: { location: login } });
  });

  test('shows its page in place of any other, or says so by status 511', async () => {
    const page = await plain((_request, response) =>
      response.writeHead(200, { 'content-type': 'text/html' }).end('<h1>Welcome</h1>'),
    );
    expect((await checkEndpoint(page.url, { signal })).portal).toEqual({ location: null });
    const rfc6585 = await plain((_request, response) => response.writeHead(511).end());
    expect((await checkEndpoint(rfc6585.url, { signal })).portal).toEqual({ location: null });
  });

  test('a server that redirects to its own HTTPS, or refuses, is none', async () => {
    const own = await plain((request, response) =>
      response.writeHead(308, { location: `https://127.0.0.1${request.url}` }).end(),
    );
    const missing = await plain((_request, response) => response.writeHead(404).end());
    for (const { url } of [own, missing])
      expect((await checkEndpoint(url, { signal })).portal, url).toBeNull();
    const { url } = await satellite();
    const redirecting = await plain((_request, response) =>
      response.writeHead(302, { location: login }).end(),
    );
    // HTTPS works, so port 80 is not asked.
    const report = await checkEndpoint(url, { signal, ca: ours.cert, httpPort: redirecting.port });
    expect(report.portal).toBeNull();
  });
});

describe('DNS', () => {
  /** A DNS server. Without `answers` it takes questions and says nothing. */
  async function resolver(answers: boolean): Promise<string> {
    const socket = createSocket('udp4').bind(0, '127.0.0.1');
    await once(socket, 'listening');
    closers.push(() => socket.close());
    socket.on('message', (question, from) => {
      if (!answers) return;
      const reply = Buffer.from(question);
      // A response with "no such name": an answer as good as any.
      reply.writeUInt16BE(0x8183, 2);
      socket.send(reply, from.port, from.address);
    });
    return `127.0.0.1:${socket.address().port}`;
  }

  test('tells the resolvers that answer from those that do not', async () => {
    const [silent, good] = [await resolver(false), await resolver(true)];
    const ask = (server: string, timeoutMs: number) =>
      checkDns(['https://cde.example.invalid:8443/x'], { signal, servers: [server], timeoutMs });
    const without = await ask(silent, 200);
    expect(without.resolvers).toEqual([{ address: silent, ms: null, error: 'no answer within 0.2 s' }]);
    const { resolvers, lookups } = await ask(good, 60_000);
    expect(resolvers).toEqual([{ address: good, ms: expect.any(Number), error: null }]);
    expect(lookups).toEqual([
      { host: 'cde.example.invalid', ms: null, addresses: [], error: expect.any(String) },
    ]);
  });

  test('asks nobody about addresses', async () => {
    const silent = await resolver(false);
    const report = await checkDns(['http://127.0.0.1:1', 'https://[::1]', 'http://localhost:2'], {
      signal,
      servers: [silent],
    });
    expect(report).toEqual({ resolvers: [{ address: silent, ms: null, error: null }], lookups: [] });
  });
});

describe('clock, MTU and time', () => {
  test('compares the clock with that of the other end', async () => {
    const { url } = await plain((_request, response) => {
      response.setHeader('date', new Date(Date.now() - 3_600_000).toUTCString());
      response.writeHead(204).end();
    });
    const { clockAheadSeconds } = await checkEndpoint(url, { signal });
    expect(Math.abs(clockAheadSeconds! - 3_600)).toBeLessThan(60);
    const right = await plain(probe);
    const { clockAheadSeconds: none } = await checkEndpoint(right.url, { signal });
    expect(Math.abs(none!)).toBeLessThan(60);
  });

  /** A way that loses full packets and tells nobody. */
  async function blackHole(port: number): Promise<string> {
    const server = createTcp((client) => {
      const upstream = connect(port, '127.0.0.1');
      client.on('data', (chunk) => chunk.length < 1_300 && upstream.write(chunk));
      upstream.pipe(client);
      for (const socket of [client, upstream]) socket.on('error', () => {});
      client.once('close', () => upstream.destroy());
    });
    return `http://127.0.0.1:${await listen(server)}`;
  }

  test('notices that large packets are lost', async () => {
    const { port, url } = await plain(probe);
    expect(await checkMtu(url, signal, 60_000)).toMatchObject({
      largePackets: true,
      ...(process.platform === 'linux' && { interfaceMtu: 65_536 }),
    });
    expect((await checkMtu(await blackHole(port), signal)).largePackets).toBe(false);
    expect(await checkMtu('http://127.0.0.1:1', signal)).toEqual({
      interfaceMtu: null,
      pathMtu: null,
      largePackets: null,
    });
  });

  test('ends in time, and keeps what it has', async () => {
    const silent = createTcp(() => {});
    const url = `http://127.0.0.1:${await listen(silent)}`;
    const { url: good } = await plain(probe);
    let release = () => {};
    const listed = new Promise<{ name: string; region: string; url: string }[]>((resolve) => {
      release = () => resolve([{ name: 'silent', region: '', url }]);
    });
    const checking = netcheck(listed, { signal, server: good });
    release();
    const report = await checking;
    expect(report).toMatchObject({ complete: false, server: { status: 204 }, mtu: { largePackets: true } });
    expect(report.satellites[0]!.https.error).toContain('no answer in time');
  });
});
