import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { Duplex, duplexPair } from 'node:stream';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { afterEach, describe, expect, it, vi } from 'vitest';
import type { TunnelError } from '../errors.ts';
import type { Path } from '../pipe/path.ts';
import { connectUdp, type UdpOptions, udpCount } from './direct-udp.ts';
import {
  formatCandidate,
  formatIce,
  type IceMessage,
  makeIceReader,
  parseCandidate,
  parseIce,
} from './ice.ts';

const patience = { timeout: 15_000, interval: 10 };
const options: UdpOptions = {
  bindAddress: '127.0.0.1',
  timeoutMs: 8_000,
  signal: new AbortController().signal,
};
const made: Path[] = [];
afterEach(async () => {
  for (const path of made.splice(0)) path.close();
  await vi.waitFor(() => expect(udpCount()).toBe(0), patience);
});

async function pair(more: Partial<UdpOptions> = {}): Promise<[Path, Path]> {
  const [mine, theirs] = duplexPair();
  const both = await Promise.all([
    connectUdp('offer', mine, { ...options, ...more }),
    connectUdp('answer', theirs, { ...options, ...more }),
  ]);
  made.push(...both);
  return both;
}

/** Starts a path; all that it tells. */
function listen(path: Path) {
  const chunks: Buffer[] = [];
  const state = { bytes: 0, drains: 0, closed: undefined as TunnelError | null | undefined };
  path.start({
    data(chunk) {
      chunks.push(chunk);
      state.bytes += chunk.length;
    },
    drain: () => state.drains++,
    closed(error) {
      state.closed = error;
    },
  });
  return { state, all: () => Buffer.concat(chunks) };
}

describe('a path by UDP', () => {
  it('carries bytes in order, asks its sender to wait, and its reader may rest', async () => {
    const [one, other] = await pair();
    expect(one).toMatchObject({ kind: 'direct-udp', via: expect.stringMatching(/^127\.0\.0\.1:\d+$/) });
    const [here, there] = [listen(one), listen(other)];
    other.pause();
    // As much unacknowledged data as a pipe allows.
    const sent = Array.from({ length: 64 }, () => randomBytes(65_000));
    const room = sent.map((chunk) => one.send(chunk));
    expect(room[0]).toBe(true);
    expect(room.at(-1)).toBe(false);
    await vi.waitFor(() => expect(here.state.drains).toBeGreaterThan(0), patience);
    expect(there.state.bytes).toBe(0);
    other.resume();
    await vi.waitFor(() => expect(there.state.bytes).toBe(64 * 65_000), patience);
    expect(there.all().equals(Buffer.concat(sent))).toBe(true);
    one.send(Buffer.from('last words'));
    one.close();
    await vi.waitFor(() => expect(there.state.closed).toBeDefined(), patience);
    expect(there.all().subarray(-10).toString()).toBe('last words');
    await vi.waitFor(() => expect(here.state.closed).toBeNull(), patience);
  });

  it('does not keep more for a reader that rests than a pipe may send', async () => {
    const [one, other] = await pair();
    const there = listen(other);
    listen(one);
    other.pause();
    for (let i = 0; i < 160; i++) one.send(Buffer.alloc(65_000));
    await vi.waitFor(() => expect(there.state.closed).toMatchObject({ code: 'path-lost' }), patience);
    one.close();
  });

  it('is given up when the other end dies', async () => {
    const child = spawn(process.execPath, [fileURLToPath(new URL('udp-peer.ts', import.meta.url))], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const signals = Duplex.from({ readable: child.stdout, writable: child.stdin });
    signals.on('error', () => {});
    const path = await connectUdp('offer', signals, {
      ...options,
      unansweredMs: 500,
    });
    const { state, all } = listen(path);
    path.send(Buffer.from('hello'));
    await vi.waitFor(() => expect(all().toString()).toBe('hello'), patience);
    child.kill('SIGKILL');
    path.send(Buffer.from('are you there?'));
    await vi.waitFor(() => expect(state.closed).toMatchObject({ code: 'path-lost' }), patience);
  });

  it('is not made with who speaks for the other end, and leaves nothing behind', async () => {
    const [mine, between] = duplexPair();
    const [beyond, theirs] = duplexPair();
    // Somebody in between who puts a certificate of its own in the place of the agent's.
    const forge = (from: Duplex, to: Duplex, change: (line: string) => string) =>
      from.on('data', (chunk) => {
        for (const line of String(chunk).split('\n').filter(Boolean)) to.write(`${change(line)}\n`);
      });
    forge(between, beyond, (line) => line);
    forge(beyond, between, (line) =>
      line.replace(/"fingerprint":"[^"]*"/, `"fingerprint":"${Array(32).fill('AB').join(':')}"`),
    );
    const ends = await Promise.allSettled([
      connectUdp('offer', mine, { ...options, timeoutMs: 1_500 }),
      connectUdp('answer', theirs, { ...options, timeoutMs: 1_500 }),
    ]);
    expect(ends.map((end) => end.status === 'rejected' && end.reason.code)).toEqual([
      'path-unreachable',
      'path-unreachable',
    ]);
  });

  const candidate = 'candidate:1 1 UDP 2114977791 192.0.2.7 4000 typ host';
  it.each([
    ['garbage', 'no JSON\n'],
    ['a candidate before the hello', formatIce({ what: 'candidate', candidate })],
    ['a line without an end', 'x'.repeat(2_000)],
    ['too much', formatIce({ what: 'all' }).repeat(41)],
  ])('is not made from %s', async (_name, text) => {
    const [mine, theirs] = duplexPair();
    theirs.resume();
    const made = connectUdp('answer', mine, options);
    theirs.write(text);
    await expect(made).rejects.toMatchObject({ code: 'path-unreachable' });
  });

  it('is not established after it was cancelled', async () => {
    const off = new AbortController();
    const [mine, theirs] = duplexPair();
    theirs.resume();
    const made = connectUdp('offer', mine, { ...options, signal: off.signal });
    off.abort();
    await expect(made).rejects.toMatchObject({ code: 'session-aborted' });
    const left = connectUdp('offer', theirs, options);
    theirs.destroy();
    await expect(left).rejects.toMatchObject({ code: 'path-unreachable' });
  });
});

describe('what both ends say', () => {
  it('is accepted if it is well-formed, and rebuilt', () => {
    const hello: IceMessage = {
      what: 'hello',
      ufrag: 'abcd',
      pwd: 'a'.repeat(22),
      fingerprint: Array(32).fill('0F').join(':'),
    };
    expect(parseIce(formatIce(hello))).toEqual(hello);
    expect(parseIce(formatIce({ ...hello, pwd: `${hello.pwd}\r\na=setup:active` }))).toBeNull();
    expect(parseIce(formatIce({ ...hello, fingerprint: 'AB:CD' }))).toBeNull();
    const long = 'a=candidate:7 1 udp 1677729535 2001:db8::9 9 typ srflx raddr 10.0.0.1 rport 7 generation 0';
    expect(parseIce(formatIce({ what: 'candidate', candidate: long }))).toEqual({
      what: 'candidate',
      candidate: 'candidate:7 1 UDP 1677729535 2001:db8::9 9 typ srflx raddr :: rport 0',
    });
  });

  it.each([
    'candidate:1 1 UDP 1 abcd.local 4000 typ host',
    'candidate:1 1 UDP 1 169.254.169.254 80 typ host',
    'candidate:1 1 UDP 1 ::ffff:169.254.169.254 80 typ host',
    'candidate:1 1 UDP 1 ::ffff:a9fe:a9fe 80 typ host',
    'candidate:1 1 UDP 1 0:0:0:0:0:ffff:169.254.169.254 80 typ host',
    'candidate:1 1 UDP 1 fe80::1 80 typ host',
    'candidate:1 1 UDP 1 224.0.0.1 80 typ host',
    'candidate:1 1 UDP 1 0.0.0.0 80 typ host',
    'candidate:1 1 UDP 1 10.0.0.1 0 typ host',
    'candidate:1 1 UDP 9999999999 10.0.0.1 1 typ host',
    'candidate:1 1 TCP 1 10.0.0.1 80 typ host',
    'candidate:1 1 UDP 1 10.0.0.1 80 typ relay',
  ])('leads nowhere by %s', (text) => {
    expect(parseCandidate(text)).toBeNull();
  });

  it('is read without a fault, whatever it is', () => {
    const words = fc.constantFrom(
      '{',
      '"what":"hello"',
      '"candidate"',
      ':',
      ',',
      '}',
      '\n',
      'null',
      '[]',
      '1',
    );
    const text = fc.oneof(
      fc.string(),
      fc.array(words).map((parts) => parts.join('')),
    );
    fc.assert(
      fc.property(fc.array(text), (chunks) => {
        const got: IceMessage[] = [];
        const read = makeIceReader((message) => got.push(message));
        for (const chunk of chunks) if (!read(chunk)) break;
        for (const message of got) expect(parseIce(formatIce(message))).toEqual(message);
      }),
    );
    fc.assert(
      fc.property(fc.ipV4(), fc.integer({ min: 1, max: 65535 }), fc.nat(), (address, port, priority) => {
        const made = parseCandidate(`candidate:1 1 UDP ${priority} ${address} ${port} typ prflx`);
        if (made) expect(parseCandidate(formatCandidate(made))).toEqual(made);
      }),
    );
  });
});
