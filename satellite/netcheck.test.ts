import { randomBytes, randomUUID } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { checkEndpoint } from '@cde/tunnel/netcheck/endpoint-check.ts';
import { netcheck } from '@cde/tunnel/netcheck/netcheck.ts';
import { makeProbeClient } from '@cde/tunnel/netcheck/probe-train.ts';
import { answerBinding, bindingRequest, readMapped } from '@cde/tunnel/netcheck/stun.ts';
import { makeAuthority } from '@cde/tunnel/netcheck/testing-authority.ts';
import { natKind } from '@cde/tunnel/netcheck/udp-check.ts';
import fc from 'fast-check';
import Fastify from 'fastify';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { relayPlugin } from './relay/plugin.ts';
import { makeRelay } from './relay/relay.ts';
import { serveStun } from './stun/server.ts';
import { makeWorld, type World } from './testing.ts';

let world: World;
const closers: (() => unknown)[] = [];
const { signal } = new AbortController();
beforeEach(async () => {
  world = await makeWorld();
});
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
  await world.close();
});

async function place(name: string) {
  const { url } = await world.satellite();
  const stun = await serveStun({ host: '127.0.0.1', port: 0 });
  closers.push(() => stun.close());
  return { name, region: 'east', url, stun: `127.0.0.1:${stun.port}` };
}

/** A UDP server that responds with what `answer` returns. */
async function udp(answer: (datagram: Buffer, from: { address: string; port: number }) => Buffer | null) {
  const socket = createSocket('udp4').bind(0, '127.0.0.1');
  await once(socket, 'listening');
  socket.on('message', (datagram, from) => {
    const said = answer(datagram, from);
    if (said) socket.send(said, from.port, from.address);
  });
  closers.push(() => new Promise<void>((resolve) => socket.close(resolve)));
  return `127.0.0.1:${socket.address().port}`;
}

/** A UDP proxy that drops selected datagrams. */
async function losing(stun: string, loses: (count: number) => boolean) {
  const port = Number(stun.split(':')[1]);
  let count = 0;
  let client = 0;
  const way = createSocket('udp4');
  const front = createSocket('udp4').bind(0, '127.0.0.1');
  await once(front, 'listening');
  front.on('message', (datagram, from) => {
    client = from.port;
    if (datagram.toString('latin1', 0, 4) === 'cdeP' && datagram[4] === 3 && loses(count++)) return;
    way.send(datagram, port, '127.0.0.1');
  });
  way.on('message', (datagram) => front.send(datagram, client, '127.0.0.1'));
  closers.push(
    () => front.close(),
    () => way.close(),
  );
  return `127.0.0.1:${front.address().port}`;
}

test('measures HTTPS, UDP and throughput of each satellite', async () => {
  const token = await world.signer.signProbeToken({
    userId: randomUUID(),
    exp: Math.floor(Date.now() / 1000) + 60,
  });
  const [one, two] = [await place('one'), await place('two')];
  two.stun = await losing(two.stun, (count) => count % 4 === 3);
  const report = await netcheck([one, two], { signal, token });
  expect(report).toMatchObject({ udp: true, nat: 'endpoint-dependent', ipv4: true, ipv6: null, proxy: null });
  const [first, second] = report.satellites;
  expect(first).toMatchObject({
    name: 'one',
    https: { error: null },
    udp: { answered: true, error: null, train: { sent: 20, received: 20, lossPercent: 0 } },
    throughput: { error: null },
  });
  expect(first!.udp.mapped).toMatch(/^127\.0\.0\.1:\d+$/);
  expect(first!.https.rttMs).toBeGreaterThan(0);
  expect(first!.https.rttMs).toBeGreaterThanOrEqual(first!.https.leastMs!);
  for (const way of ['downBitsPerSecond', 'upBitsPerSecond'] as const)
    expect(first!.throughput![way]).toBeGreaterThan(1e6);
  expect(second!.udp.train).toMatchObject({ sent: 20, received: 15, lossPercent: 25 });
});

test('a satellite that terminates TLS tells its certificate, so that interception is noticed', async () => {
  const authority = makeAuthority('Example Corp');
  const app = Fastify({ https: authority.issue() });
  await app.register(relayPlugin, { relay: makeRelay({ ticketKeys: [] }) });
  const url = await app.listen({ port: 0, host: '127.0.0.1' });
  closers.push(() => app.close());
  const { status, tls } = await checkEndpoint(url, { signal, ca: authority.cert });
  expect(status).toBe(204);
  expect(tls).toMatchObject({ trust: 'private', intercepted: false });
  // Without TLS there is nothing to tell.
  expect((await checkEndpoint((await place('one')).url, { signal })).tls).toBeNull();
});

test('explains what does not work', async () => {
  const [one, two, three] = [await place('one'), await place('two'), await place('three')];
  const silent = await udp(() => null);
  const lying = await udp((datagram) => {
    const answer = answerBinding(datagram, { address: '203.0.113.9', port: 1 });
    return answer && Buffer.concat([answer.subarray(0, 8), randomBytes(12), answer.subarray(20)]);
  });
  const old = await udp((datagram, from) => answerBinding(datagram, from));
  const { stun: _, ...without } = await place('four');
  const report = await netcheck(
    [
      { ...one, stun: silent },
      { ...two, stun: lying },
      { ...three, stun: old },
      without,
      { name: 'gone', region: '', url: 'http://127.0.0.1:9', stun: 'nowhere.invalid:9' },
    ],
    { signal, token: 'x' },
  );
  const errors = report.satellites.map(({ udp }) => udp.error);
  expect(errors[0]).toContain('UDP is blocked');
  // A response to another request does not count.
  expect(errors[1]).toContain('UDP is blocked');
  expect(errors[2]).toContain('earlier release');
  expect(errors[3]).toContain('UDP is disabled there');
  expect(errors[4]).toMatch(/nowhere\.invalid/);
  expect(report.satellites[2]!.udp).toMatchObject({ answered: true, train: null });
  expect(report.satellites[4]).toMatchObject({
    https: { rttMs: null, error: expect.stringContaining('ECONNREFUSED') },
    ipv4: false,
  });
  expect(report.satellites[4]!.throughput).toBeUndefined();
  expect(report.satellites[0]!.throughput!.error).toMatch(/ticket/i);
});

test('names the kind of NAT', () => {
  const seen = (...mapped: string[]) => new Map(mapped.map((place, i) => [`198.51.100.${i}:3478`, place]));
  expect(natKind(seen('203.0.113.9:4000', '203.0.113.9:4000'), [4000])).toBe('endpoint-independent');
  expect(natKind(seen('203.0.113.9:4000', '203.0.113.9:4001'), [4000])).toBe('endpoint-dependent');
  expect(natKind(seen('203.0.113.9:4000'), [4000])).toBe('unknown');
  expect(natKind(seen('203.0.113.9:4000', '[2001:db8::1]:4000'), [4000])).toBe('unknown');
  expect(natKind(seen('127.0.0.1:4000', '127.0.0.1:4000'), [4000])).toBe('none');
  expect(natKind(new Map(), [])).toBe('unknown');
});

test('parses the response of a satellite and ignores everything else', () => {
  const transaction = randomBytes(12);
  const froms = [
    { address: '192.0.2.7', port: 65_535 },
    { address: '2001:db8::7', port: 1 },
  ];
  for (const from of froms)
    expect(readMapped(answerBinding(bindingRequest(transaction), from)!, transaction)).toEqual(from);
  const asker = makeProbeClient();
  const answer = answerBinding(bindingRequest(transaction), froms[0]!)!;
  const changed = fc
    .array(fc.tuple(fc.nat(answer.length - 1), fc.nat(255)), { minLength: 1, maxLength: 6 })
    .map((changes) => {
      const other = Buffer.from(answer);
      for (const [at, byte] of changes) other[at] = byte;
      return other;
    });
  const any = fc.uint8Array({ maxLength: 120 }).map((bytes) => Buffer.from(bytes));
  fc.assert(
    fc.property(fc.oneof(changed, any), (datagram) => {
      const mapped = readMapped(datagram, transaction);
      if (mapped) expect(mapped.port).toBeLessThanOrEqual(65_535);
      expect(asker.readCookie(datagram)).toBeNull();
      expect(asker.readEcho(datagram)).toBeNull();
    }),
    { numRuns: 500 },
  );
});
