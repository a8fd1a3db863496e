import { randomBytes } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { udpCount } from '@cde/tunnel/paths/direct-udp.ts';
import type { PathKind } from '@cde/tunnel/pipe/path.ts';
import type { PathChange } from '@cde/tunnel/selection/history.ts';
import type { SteerOptions } from '@cde/tunnel/selection/steer.ts';
import type { SessionRegistryOptions } from '@cde/tunnel/session/registry.ts';
import type { Session, SessionOptions } from '@cde/tunnel/session/session.ts';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { type StunServer, serveStun } from '../stun/server.ts';
import { makeWorld, type World } from '../testing.ts';

/** Paths by UDP, found by ICE on loopback, with a real satellite, its STUN server, an agent and clients. */
const ssh = { kind: 'ssh' } as const;
const all: PathKind[] = ['relay', 'direct-tcp', 'direct-udp'];
const some: PathKind[] = ['relay', 'direct-udp'];
const times = { firstMs: 20, quickMs: 40, slowMs: 300, idleMs: 300, probeMs: 2_000, offerMs: 3_000 };
const patience = { timeout: 10_000, interval: 10 };
const local = { bindAddress: '127.0.0.1' } as const;

let world: World;
let stun: StunServer;
let url: string;
beforeEach(async () => {
  world = await makeWorld();
  const { port } = await world.satellite();
  // As far away as a real satellite; otherwise no path could be better.
  url = (await world.proxy(port, 5)).url;
  stun = await serveStun({ host: '127.0.0.1', port: 0 });
});
afterEach(async () => {
  await world.close();
  await stun.close();
  await vi.waitFor(() => expect(udpCount()).toBe(0), patience);
});

const stunAddress = () => `127.0.0.1:${stun.port}`;

function agent(host: Partial<SessionRegistryOptions> = {}, offered = all) {
  return world.agent(url, {
    offers: { current: () => ({ paths: offered, satellites: [], addresses: [] }), onChange: () => () => {} },
    udp: { ...local, stun: stunAddress },
    ...host,
  });
}

async function open(
  more: Partial<SessionOptions> = {},
  steer: Partial<SteerOptions> = {},
  ticket = world.ticket({ paths: all }),
) {
  const changes: PathChange[] = [];
  const reply = {
    ticket: await ticket,
    agentKey: world.agentKey,
    satellites: [{ name: 'one', url, stun: stunAddress() }],
  };
  const session = await world.open([], {
    ...reply,
    renewTicket: async () => reply,
    onChange: (change) => changes.push(change),
    steer: { paths: some, times, networkNow: () => 'one', ...steer },
    udp: local,
    ...more,
  });
  return { session, changes, what: () => changes.map(({ what, kind }) => `${what} ${kind}`) };
}

/** Sends random bytes and compares their echoes until `stop`. */
async function talk(session: Session) {
  const stream = await session.open(ssh);
  const block = randomBytes(1 << 20);
  let sent = 0;
  let got = 0;
  let stopped = false;
  let wrong: number | undefined;
  const push = () => {
    while (!stopped && sent - got < 4 << 20) {
      const at = sent % block.length;
      const chunk = block.subarray(at, Math.min(at + 30_000, block.length));
      sent += chunk.length;
      if (!stream.write(chunk)) return;
    }
  };
  stream.on('drain', push);
  stream.on('data', (chunk: Buffer) => {
    for (let done = 0; done < chunk.length; ) {
      const at = (got + done) % block.length;
      const part = chunk.subarray(done, done + block.length - at);
      if (!part.equals(block.subarray(at, at + part.length))) wrong ??= got + done;
      done += part.length;
    }
    got += chunk.length;
    push();
  });
  push();
  return {
    bytes: () => got,
    async stop() {
      stopped = true;
      await vi.waitFor(() => expect(got).toBe(sent), patience);
      expect(wrong).toBeUndefined();
      stream.destroy();
    },
  };
}

const descriptors = () => readdirSync('/proc/self/fd').length;

describe('a path by UDP', () => {
  it('is found and used, and replaced by the relay when it ends, without losing a byte', async () => {
    agent();
    const { session, changes, what } = await open();
    const talking = await talk(session);
    await vi.waitFor(() => expect(session.path.kind).toBe('direct-udp'), patience);
    expect(session.path.via).toMatch(/^127\.0\.0\.1:\d+$/);
    expect(changes[1]!.measured.map(({ kind }) => kind)).toContain('direct-udp');
    const at = talking.bytes();
    await vi.waitFor(() => expect(talking.bytes()).toBeGreaterThan(at + 4_000_000), patience);

    session.path.close();
    await vi.waitFor(() => expect(session.path.kind).toBe('relay'), patience);
    const after = talking.bytes();
    await vi.waitFor(() => expect(talking.bytes()).toBeGreaterThan(after + 200_000), patience);
    await talking.stop();
    expect(what().slice(0, 4)).toEqual([
      'opened relay',
      'moved direct-udp',
      'lost direct-udp',
      'resumed relay',
    ]);
    expect(stun.stats().answered).toBeGreaterThan(0);
  });

  it('serves a client that allows nothing else', async () => {
    const { registry } = agent();
    const { session, what } = await open({}, { paths: ['direct-udp'] });
    expect(what()).toEqual(['opened relay', 'moved direct-udp']);
    const talking = await talk(session);
    await vi.waitFor(() => expect(talking.bytes()).toBeGreaterThan(1_000_000), patience);
    // It finds another path although no other kind is allowed and no path is left to signal over.
    session.path.close();
    await vi.waitFor(
      () => expect(what().slice(2)).toEqual(['lost direct-udp', 'resumed direct-udp']),
      patience,
    );
    const after = talking.bytes();
    await vi.waitFor(() => expect(talking.bytes()).toBeGreaterThan(after + 1_000_000), patience);
    await talking.stop();
    await vi.waitFor(() => expect(registry.stats()).toMatchObject({ sessions: 1, waiting: 0 }), patience);
  });

  it('frees its descriptors with the session', async () => {
    agent();
    const once = async () => {
      const { session } = await open({}, { paths: ['direct-udp'] });
      session.close();
      await vi.waitFor(() => expect(udpCount()).toBe(0), patience);
    };
    await once();
    const before = descriptors();
    for (let i = 0; i < 5; i++) await once();
    await vi.waitFor(() => expect(descriptors()).toBeLessThanOrEqual(before + 2), patience);
  });
});

describe('without a path by UDP', () => {
  it('the session stays on its path and reports why', async () => {
    agent();
    const { session, changes, what } = await open({ udp: { bindAddress: '::1', timeoutMs: 6_000 } });
    const talking = await talk(session);
    await vi.waitFor(() => expect(what()).toContain('unavailable direct-udp'), patience);
    expect(changes[1]!.text).toMatch(/no path from (::1|no address).* to .*127\.0\.0\.1/);
    await talking.stop();
    expect(session.path.kind).toBe('relay');
    await expect(
      open({ udp: { bindAddress: '::1', timeoutMs: 2_000 } }, { paths: ['direct-udp'] }),
    ).rejects.toMatchObject({ code: 'path-unavailable', detail: expect.stringContaining('no path from') });
  });

  it('an agent without support reports it', async () => {
    world.agent(url, {
      offers: { current: () => ({ paths: all, satellites: [], addresses: [] }), onChange: () => () => {} },
    });
    const { session, changes, what } = await open();
    await vi.waitFor(() => expect(what()).toContain('unavailable direct-udp'), patience);
    expect(changes[1]!.text).toContain('the agent does not offer it');
    expect(session.path.kind).toBe('relay');
  });
});

describe('the policy', () => {
  it('keeps a session off UDP if ticket or agent forbid it', async () => {
    const { registry } = agent({ paths: () => ['relay'] });
    // The agent refuses what it offered; the client notices and stays on its path.
    const { session, changes, what } = await open();
    await vi.waitFor(() => expect(what()).toContain('unavailable direct-udp'), patience);
    expect(changes[1]!.text).toContain('forbidden');
    expect(session.path.kind).toBe('relay');
    await expect(
      open({}, { paths: ['direct-udp'] }, world.ticket({ paths: ['relay'] })),
    ).rejects.toMatchObject({ code: 'path-forbidden' });
    await vi.waitFor(() => expect(registry.stats().sessions).toBe(1), patience);
  });
});
