import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { netcheck } from './netcheck.ts';

const closers: (() => void)[] = [];
afterEach(() => {
  for (const close of closers.splice(0)) close();
});

/** A satellite on loopback that answers probes, and transfers as `transfer` says. */
async function satellite(transfer?: (request: IncomingMessage, response: ServerResponse) => void) {
  const server = createServer((request, response) => {
    const path = request.url!.split('?')[0]!;
    if (path.endsWith('/relay/v1/probe')) return void response.writeHead(204).end();
    if (transfer) return transfer(request, response);
    if (path.endsWith('/down')) return void response.end(Buffer.alloc(1_000_000));
    let bytes = 0;
    request.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
    });
    request.on('end', () => response.end(JSON.stringify({ bytes })));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  closers.push(() => server.close());
  closers.push(() => server.closeAllConnections());
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/sub`;
  return { name: 'eu', region: 'Europe', url };
}

const signal = new AbortController().signal;

describe('netcheck', () => {
  it('measures HTTPS and both directions of throughput', async () => {
    const notes: string[] = [];
    const report = await netcheck([await satellite()], {
      signal,
      token: 'token',
      note: (text) => notes.push(text),
    });
    expect(report).toMatchObject({ udp: false, nat: 'unknown', ipv4: true, ipv6: null });
    const [{ https, throughput }] = report.satellites as [(typeof report.satellites)[number]];
    expect(https.error).toBeNull();
    expect(https.leastMs).toBeLessThanOrEqual(https.rttMs!);
    expect(throughput).toMatchObject({ error: null });
    expect(throughput!.downBitsPerSecond).toBeGreaterThan(0);
    expect(throughput!.upBitsPerSecond).toBeGreaterThan(0);
    expect(notes).toEqual([expect.stringContaining('eu')]);
  });

  it('measures no throughput without a token', async () => {
    const { satellites } = await netcheck([await satellite()], { signal });
    expect(satellites[0]!.throughput).toBeUndefined();
  });

  it('reports an unreachable satellite, and measures the others', async () => {
    const dead = { name: 'dead', region: '', url: 'http://127.0.0.1:1' };
    const { satellites, ipv4 } = await netcheck([dead, await satellite()], { signal, token: 'token' });
    expect(satellites[0]).toMatchObject({ ipv4: false, https: { rttMs: null } });
    expect(satellites[0]!.https.error).toContain('ECONNREFUSED');
    expect(satellites[0]!.throughput).toBeUndefined();
    expect(satellites[1]!.throughput).toMatchObject({ error: null });
    expect(ipv4).toBe(true);
  });

  it('passes on why a satellite refused the transfer', async () => {
    const refusing = await satellite((_request, response) => {
      response.writeHead(429).end(JSON.stringify({ message: 'Another test is running', detail: 'wait' }));
    });
    const proxied = await satellite((_request, response) => {
      response.writeHead(502).end('<html>');
    });
    const { satellites } = await netcheck([refusing, proxied], { signal, token: 'token' });
    expect(satellites[0]!.throughput!.error).toContain('Another test is running: wait');
    expect(satellites[1]!.throughput!.error).toContain('HTTP status 502');
  });

  it('does not trust the byte count of a satellite', async () => {
    const lying = await satellite((request, response) => {
      request.resume();
      request.on('end', () => response.end(JSON.stringify({ bytes: 1e15 })));
      if (request.method === 'GET') response.end('x');
    });
    const { satellites } = await netcheck([lying], { signal, token: 'token' });
    const maxBytes = 8 * 1024 * 1024;
    expect(satellites[0]!.throughput!.upBitsPerSecond).toBeLessThanOrEqual((maxBytes * 8) / 0.0001);
  });

  it('rejects when it is aborted', async () => {
    const stop = new AbortController();
    stop.abort(new Error('interrupted'));
    await expect(netcheck([await satellite()], { signal: stop.signal })).rejects.toThrow('interrupted');
  });
});
