import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { networkInterfaces } from 'node:os';
import { afterEach, describe, expect, it } from 'vitest';
import { makeProbeResponder } from './probe-train.ts';
import { answerBinding } from './stun.ts';
import { checkUdp, median, natKind } from './udp-check.ts';

const sockets: Socket[] = [];
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.close();
});

type Answer = (datagram: Buffer, from: { address: string; port: number }) => Buffer | null;

/** A UDP server on loopback; returns its HOST:PORT. */
async function serve(answer: Answer): Promise<string> {
  const socket = createSocket('udp4').bind(0, '127.0.0.1');
  sockets.push(socket);
  socket.on('message', (datagram, from) => {
    const reply = answer(datagram, from);
    if (reply) socket.send(reply, from.port, from.address);
  });
  await once(socket, 'listening');
  return `127.0.0.1:${socket.address().port}`;
}

const both = (): Answer => {
  const probes = makeProbeResponder();
  return (datagram, from) => answerBinding(datagram, from) ?? probes.answer(datagram, from);
};
const signal = new AbortController().signal;

describe('the check of UDP', () => {
  it('reports the mapped address and a probe train', async () => {
    const servers = [await serve(both()), await serve(both())];
    const { reports, nat } = await checkUdp(servers, signal);
    expect(nat).toBe('none');
    for (const [i, report] of reports.entries()) {
      expect(report).toMatchObject({ stun: servers[i], answered: true, error: null });
      expect(report.mapped).toMatch(/^127\.0\.0\.1:\d+$/);
      expect(report.train!.sent).toBe(20);
      expect(report.train!.received).toBeGreaterThan(0);
    }
    // One socket for all servers: otherwise the kind of NAT could not be told.
    expect(reports[0]!.mapped).toBe(reports[1]!.mapped);
  });

  it('measures loss', async () => {
    const answer = both();
    let count = 0;
    const isProbe = (datagram: Buffer) => datagram.toString('latin1', 0, 4) === 'cdeP' && datagram[4] === 3;
    const server = await serve((datagram, from) =>
      isProbe(datagram) && count++ % 2 === 0 ? null : answer(datagram, from),
    );
    const { reports } = await checkUdp([server], signal);
    const { received, lossPercent } = reports[0]!.train!;
    expect(received).toBeLessThanOrEqual(10);
    expect(lossPercent).toBe((100 * (20 - received)) / 20);
  });

  it('explains silence, a satellite without STUN, and one of an earlier release', async () => {
    const silent = await serve(() => null);
    const older = await serve(answerBinding);
    const { reports, nat } = await checkUdp([silent, undefined, older], signal);
    expect(nat).not.toBe('endpoint-dependent');
    expect(reports[0]).toMatchObject({ answered: false, mapped: null, train: null });
    expect(reports[0]!.error).toContain(`no answer by UDP from ${silent}`);
    expect(reports[1]).toMatchObject({ stun: null, answered: false });
    expect(reports[1]!.error).toContain('STUN');
    expect(reports[2]).toMatchObject({ answered: true, train: null });
    expect(reports[2]!.error).toContain('earlier release');
  });
});

describe('the kind of NAT', () => {
  const own = Object.values(networkInterfaces()).flatMap((all) => all ?? [])[0]!.address;
  const local = own.includes(':') ? `[${own}]:4000` : `${own}:4000`;
  it.each([
    ['none', [local, local]],
    ['endpoint-independent', ['203.0.113.9:4000', '203.0.113.9:4000']],
    ['endpoint-dependent', ['203.0.113.9:4000', '203.0.113.9:4001']],
    ['endpoint-dependent', ['[2001:db8::9]:1', '203.0.113.9:1', '[2001:db8::9]:2']],
    ['unknown', ['203.0.113.9:4000']],
    // One server for each family says nothing.
    ['unknown', ['203.0.113.9:4000', '[2001:db8::9]:4000']],
    ['unknown', []],
  ])('is %s for %j', (kind, mapped) => {
    const seen = new Map(mapped.map((address, i) => [`server ${i}`, address]));
    expect(natKind(seen, [4000])).toBe(kind);
  });
});

it('the median of an even number is the lower one', () => {
  expect(median([4, 1, 3, 2])).toBe(2);
  expect(median([5, 1, 3])).toBe(3);
});
