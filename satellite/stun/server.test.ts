import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { makeProbeClient, makeProbeResponder, probeBytes } from '@cde/tunnel/netcheck/probe-train.ts';
import { answerBinding } from '@cde/tunnel/netcheck/stun.ts';
import fc from 'fast-check';
import { afterEach, expect, test } from 'vitest';
import { type StunServer, serveStun } from './server.ts';

let server: StunServer;
const sockets: Socket[] = [];
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.close();
  await server?.close();
});

/** RFC 5769, 2.1: a request with SOFTWARE, PRIORITY, ICE-CONTROLLED, USERNAME, MESSAGE-INTEGRITY, FINGERPRINT. */
const sample = Buffer.from(
  '000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74002400046e0001ff80290008932ff9b151263b36000600096576746a3a68367659202020000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a280280004e57a3bcf',
  'hex',
);
const plain = Buffer.from('000100002112a442000102030405060708090a0b', 'hex');

function withAttribute(type: number, value: Buffer): Buffer {
  const padded = Buffer.concat([value, Buffer.alloc((4 - (value.length % 4)) % 4)]);
  const head = Buffer.from([type >> 8, type & 255, value.length >> 8, value.length & 255]);
  const all = Buffer.concat([plain, head, padded]);
  all.writeUInt16BE(4 + padded.length, 2);
  return all;
}

async function client(family: 'udp4' | 'udp6' = 'udp4', host = '127.0.0.1') {
  const socket = createSocket(family);
  sockets.push(socket);
  socket.bind(0, host);
  await once(socket, 'listening');
  return {
    port: socket.address().port,
    async ask(datagram: Buffer): Promise<Buffer> {
      const answered = once(socket, 'message') as Promise<[Buffer]>;
      socket.send(datagram, server.port, host);
      return (await answered)[0];
    },
    socket,
  };
}

test('returns the address of the client, over IPv4 and IPv6', async () => {
  server = await serveStun({ host: '127.0.0.1', port: 0 });
  const one = await client();
  const answer = await one.ask(plain);
  expect(answer.subarray(0, 4).toString('hex')).toBe('0101000c');
  expect(answer.subarray(4, 20)).toEqual(plain.subarray(4));
  expect(answer.subarray(20, 26).toString('hex')).toBe('002000080001');
  expect(answer.readUInt16BE(26) ^ 0x2112).toBe(one.port);
  expect((answer.readUInt32BE(28) ^ 0x2112a442) >>> 0).toBe(0x7f000001);

  await server.close();
  server = await serveStun({ host: '::1', port: 0 });
  const six = await client('udp6', '::1');
  const other = await six.ask(plain);
  expect(other.subarray(20, 26).toString('hex')).toBe('002000140002');
  const address = other.subarray(28, 44).map((byte, i) => byte ^ plain[4 + i]!);
  expect(Buffer.from(address).toString('hex')).toBe('00000000000000000000000000000001');
});

test('answers the sample of RFC 5769 with its mapped address and a fingerprint', () => {
  // The response of RFC 5769, 2.2, except for SOFTWARE and MESSAGE-INTEGRITY, which we do not support.
  const answer = answerBinding(sample, { address: '192.0.2.1', port: 32853 })!;
  expect(answer.subarray(20, 32).toString('hex')).toBe('002000080001a147e112a643');
  expect(answer.subarray(32, 36).toString('hex')).toBe('80280004');
  expect(answer.length).toBe(40);
  const six = answerBinding(sample, { address: '2001:db8:1234:5678:11:2233:4455:6677', port: 32853 })!;
  expect(six.subarray(20, 44).toString('hex')).toBe('002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9');
  // With any byte changed the fingerprint is wrong, so it may be another protocol.
  const altered = Buffer.from(sample);
  altered[30]! ^= 1;
  expect(answerBinding(altered, { address: '192.0.2.1', port: 1 })).toBeNull();
});

test('lists the attributes that it does not understand', () => {
  const answer = answerBinding(withAttribute(0x0003, Buffer.from([0, 0, 0, 6])), {
    address: '127.0.0.1',
    port: 9,
  })!;
  expect(answer.readUInt16BE(0)).toBe(0x0111);
  expect(answer.subarray(20).toString('hex')).toBe('0009000400000414000a000200030000');
  // Attributes from 0x8000 on can be ignored.
  expect(answerBinding(withAttribute(0x8022, Buffer.from('me')), { address: '::1', port: 9 })).toHaveLength(
    44,
  );
});

test('answers only well-formed requests, and never with much more than it received', async () => {
  const from = { address: '2001:db8::1', port: 40_000 };
  const bytes = fc.uint8Array({ maxLength: 700 }).map((each) => Buffer.from(each));
  const nearly = fc
    .tuple(
      fc.constantFrom(plain, sample, withAttribute(0x0020, Buffer.alloc(5))),
      fc.nat(),
      fc.nat(255),
      bytes,
    )
    .map(([whole, at, byte, rest]) => {
      const copy = Buffer.concat([whole, at % 3 === 0 ? rest : Buffer.alloc(0)]);
      copy[at % copy.length] = byte;
      return copy.subarray(0, at % 7 === 0 ? at % copy.length : undefined);
    });
  const check = (datagram: Buffer) => {
    const answer = answerBinding(Buffer.from(datagram), from);
    if (!answer) return;
    expect(datagram.readUInt16BE(0)).toBe(1);
    expect(datagram.readUInt16BE(2)).toBe(datagram.length - 20);
    expect(answer.readUInt16BE(2)).toBe(answer.length - 20);
    expect(answer.subarray(4, 20)).toEqual(datagram.subarray(4, 20));
    expect(answer.length).toBeLessThanOrEqual(datagram.length + 24);
  };
  fc.assert(fc.property(fc.oneof(bytes, nearly), check), { numRuns: 5_000 });
  for (const address of ['', 'eth0', '1.2.3', '::1::', '1:2:3', '::12345', 'x::'])
    expect(answerBinding(plain, { address, port: 1 })).toBeNull();

  // Over the network, all of these are ignored.
  server = await serveStun({ host: '127.0.0.1', port: 0 });
  const one = await client();
  const hostile = [
    Buffer.alloc(0),
    Buffer.alloc(20),
    Buffer.alloc(9_000, 1),
    plain.subarray(0, 19),
    ...fc.sample(nearly, 20),
  ].filter((each) => answerBinding(Buffer.from(each), from) === null);
  for (const each of hostile) one.socket.send(each, server.port, '127.0.0.1');
  expect(await one.ask(plain)).toHaveLength(32);
  expect(server.stats()).toEqual({ answered: 1, probes: 0, ignored: hostile.length, limited: 0 });
});

test('does not flood the victim of a spoofed address', async () => {
  let at = 0;
  server = await serveStun({ host: '127.0.0.1', port: 0, now: () => at });
  const one = await client();
  for (let i = 0; i < 50; i++) await one.ask(plain);
  one.socket.send(plain, server.port, '127.0.0.1');
  await expect.poll(() => server.stats().limited).toBe(1);
  at = 1_000;
  expect(await one.ask(plain)).toHaveLength(32);
  expect(server.stats().answered).toBe(51);
});

test('a probe train returns only to a client that has proven its address', async () => {
  let at = 0;
  server = await serveStun({ host: '127.0.0.1', port: 0, now: () => at });
  const [one, other] = [await client(), await client()];
  const asker = makeProbeClient();
  const answer = await one.ask(asker.hello());
  const cookie = asker.readCookie(answer)!;
  expect(cookie).toHaveLength(16);
  // Responses to other clients are ignored.
  expect(makeProbeClient().readCookie(answer)).toBeNull();
  for (const number of [0, 1, 65_535])
    expect(asker.readEcho(await one.ask(asker.probe(number, cookie)))).toBe(number);

  // A cookie of another address, an invented one, an expired one; each followed by a request that is answered.
  other.socket.send(asker.probe(7, cookie), server.port, '127.0.0.1');
  expect(makeProbeClient().readEcho(await other.ask(asker.hello()))).toBeNull();
  one.socket.send(asker.probe(7, Buffer.alloc(16, 7)), server.port, '127.0.0.1');
  expect(asker.readCookie(await one.ask(asker.hello()))).not.toBeNull();
  at += 61_000;
  one.socket.send(asker.probe(8, cookie), server.port, '127.0.0.1');
  expect(asker.readCookie(await one.ask(asker.hello()))).not.toBeNull();
  expect(server.stats()).toMatchObject({ answered: 0, probes: 7, ignored: 3, limited: 0 });
});

test('no response to a probe is longer than its request, and none is sent without a cookie', () => {
  const from = { address: '192.0.2.1', port: 4000 };
  const answerer = makeProbeResponder();
  const likely = fc
    .tuple(fc.uint8Array({ minLength: 60, maxLength: 60 }), fc.integer({ min: 0, max: 6 }))
    .map(([rest, type]) => {
      const packet = Buffer.concat([Buffer.from('cdeP'), Buffer.from(rest)]);
      packet[4] = type;
      return packet;
    });
  const any = fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes));
  fc.assert(
    fc.property(fc.oneof(likely, any), (packet) => {
      const before = Buffer.from(packet);
      const answer = answerer.answer(packet, from);
      expect(packet.equals(before)).toBe(true);
      const isHello =
        packet.length === probeBytes && packet.toString('latin1', 0, 4) === 'cdeP' && packet[4] === 1;
      expect(answer !== null).toBe(isHello);
      if (answer) expect(answer.length).toBeLessThanOrEqual(packet.length);
      // Probes and STUN messages are never confused.
      expect(answer !== null && answerBinding(packet, from) !== null).toBe(false);
    }),
    { numRuns: 500 },
  );
});
