import { generateKeyPairSync, randomBytes, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import type { Duplex } from 'node:stream';
import { setImmediate as turn } from 'node:timers/promises';
import fc from 'fast-check';
import { afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { makeCertificate } from '../auth/certificate.ts';
import { makeClientKey } from '../auth/keys.ts';
import { makeTicketSigner } from '../auth/ticket.ts';
import type { Clock } from '../clock.ts';
import { TunnelError } from '../errors.ts';
import { makePathPair, type PairEnd } from '../paths/pair.ts';
import { resumeFrame } from '../pipe/frames.ts';
import type { Path, PathEvents } from '../pipe/path.ts';
import { maxBufferedBytes } from '../pipe/pipe.ts';
import type { HostedSession } from './host.ts';
import { makeSessionRegistry, type SessionRegistryOptions } from './registry.ts';
import { openSessionOver, type Session, type SessionOptions } from './session.ts';

/** Sessions that lose their paths: client and agent over paths in memory, in virtual time. */
const signer = makeTicketSigner(generateKeyPairSync('ed25519').privateKey);
const workspaceId = randomUUID();
const clientKey = makeClientKey();
const ssh = { kind: 'ssh' } as const;
const code = (expected: string) => expect.objectContaining({ code: expected });
let certificate: Awaited<ReturnType<typeof makeCertificate>>;
let ticket: string;
beforeAll(async () => {
  certificate = await makeCertificate();
  ticket = await signer.signTicket({
    workspaceId,
    workspace: 'ada/hello',
    userId: randomUUID(),
    username: 'ada',
    agentKey: certificate.fingerprint,
    clientKey: clientKey.publicKey,
    satellites: ['here'],
    jti: randomUUID(),
    exp: Math.floor(Date.now() / 1000) + 600,
  });
});
const cleanups: (() => void)[] = [];
afterEach(() => {
  for (const clean of cleanups.splice(0)) clean();
});

/** A clock that only moves by `advance`. */
function makeClock(): Clock & { advance(ms: number): Promise<void>; sleeping(): number[] } {
  let now = 0;
  const sleepers = new Set<{ at: number; wake: () => void }>();
  return {
    now: () => now,
    random: () => 1,
    sleep: (ms, signal) =>
      new Promise((resolve) => {
        const sleeper = {
          at: now + ms,
          wake() {
            sleepers.delete(sleeper);
            resolve();
          },
        };
        if (signal.aborted) return resolve();
        sleepers.add(sleeper);
        signal.addEventListener('abort', sleeper.wake, { once: true });
      }),
    async advance(ms) {
      now += ms;
      for (const sleeper of [...sleepers]) if (sleeper.at <= now) sleeper.wake();
      for (let i = 0; i < 20; i++) await turn();
    },
    sleeping: () => [...sleepers].map(({ at }) => at - now).sort((a, b) => a - b),
  };
}

/** An agent, and dials to it that tests can break. */
function makeWorld(changes: Partial<SessionRegistryOptions> = {}) {
  const clock = makeClock();
  const sessions: HostedSession[] = [];
  const registry = makeSessionRegistry({
    tlsKey: certificate.key,
    tlsCert: certificate.cert,
    workspaceId,
    ticketKeys: [signer.publicKey],
    agentKey: certificate.fingerprint,
    onStream: (_target, stream) => {
      stream.on('error', () => {});
      stream.pipe(stream);
      return undefined;
    },
    onSession: (session) => sessions.push(session),
    clock,
    ...changes,
  });
  cleanups.push(() => registry.close());
  /** All paths so far, the client's end and the agent's. */
  const paths: [PairEnd, PairEnd][] = [];
  const world = {
    clock,
    registry,
    sessions,
    paths,
    /** Set to have dials fail. */
    refusal: undefined as TunnelError | undefined,
    /** Answers dials; replaced by tests that act as the agent. */
    agent: registry.accept,
    dials: [] as { ticket: string; url: string }[],
    connect(): Path {
      const pair = makePathPair();
      paths.push(pair);
      world.agent(pair[1]);
      return pair[0];
    },
    async open(more: Partial<SessionOptions> = {}): Promise<Session> {
      const session = await openSessionOver(world.connect(), {
        ticket,
        agentKey: certificate.fingerprint,
        satellites: [{ name: 'here', url: 'memory:' }],
        clientPrivateKey: clientKey.privateKey,
        clock,
        renewTicket: async () => ({
          ticket: 'fresh',
          agentKey: certificate.fingerprint,
          satellites: [{ name: 'there', url: 'memory:2' }],
        }),
        async dial(asked) {
          world.dials.push({ ticket: asked.ticket, url: asked.url });
          if (world.refusal) throw world.refusal;
          return world.connect();
        },
        ...more,
      });
      cleanups.push(() => session.close());
      return session;
    },
    cut(reason = 'satellite-lost' as const) {
      paths.at(-1)![0].cut(new TunnelError(reason));
    },
  };
  return world;
}

async function say(stream: Duplex, text: string): Promise<string> {
  const answer = once(stream, 'data');
  stream.write(text);
  return String((await answer)[0]);
}

describe('a session that loses its path', () => {
  it('resumes over another at once, and informs both', async () => {
    const world = makeWorld();
    const told: unknown[] = [];
    const session = await world.open({
      onPath: (state, reason, afterMs) => told.push([state, reason.code, afterMs]),
    });
    const stream = await session.open(ssh);
    expect(await say(stream, 'before')).toBe('before');
    await world.clock.advance(60_000);
    world.cut();
    expect(await say(stream, 'after')).toBe('after');
    expect(told).toEqual([
      ['lost', 'satellite-lost', 0],
      ['resumed', 'satellite-lost', 0],
    ]);
    expect(world.registry.stats()).toMatchObject({ sessions: 1, waiting: 0 });
    expect(world.paths).toHaveLength(2);
    expect(await session.ping()).toBeGreaterThan(0);
    // The first try is with the ticket at hand: no server is needed.
    expect(world.dials).toEqual([{ ticket, url: 'memory:' }]);
  });

  it('delivers every byte once, wherever the paths are cut', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.nat({ max: 60 }), { minLength: 1, maxLength: 5 }),
        fc.integer({ min: 1, max: 3_000_000 }),
        async (cuts, bytes) => {
          const world = makeWorld();
          const session = await world.open();
          await session.ready;
          const stream = await session.open(ssh, { eager: true });
          const sent = randomBytes(bytes);
          const got: Buffer[] = [];
          stream.on('data', (chunk: Buffer) => got.push(chunk));
          const over = once(stream, 'end');
          stream.end(sent);
          for (const turns of cuts) {
            for (let i = 0; i < turns; i++) await turn();
            world.cut();
            await world.clock.advance(10_000);
          }
          await over;
          expect(Buffer.concat(got).equals(sent)).toBe(true);
          session.close();
        },
      ),
      { numRuns: 25 },
    );
  });

  it('takes a new path in place of one that only seems to live', async () => {
    const world = makeWorld();
    let first: PathEvents | undefined;
    const { connect } = world;
    world.connect = () => {
      const path = connect();
      const { start } = path;
      path.start = (events) => {
        first ??= events;
        start(events);
      };
      return path;
    };
    const session = await world.open();
    const stream = await session.open(ssh);
    expect(await say(stream, 'one')).toBe('one');
    await world.clock.advance(60_000);
    const cut = vi.spyOn(world.paths[0]![1], 'close');
    // The client has noticed; the agent has not, and still has the old path.
    first!.closed(new TunnelError('satellite-lost'));
    expect(await say(stream, 'two')).toBe('two');
    expect(cut).toHaveBeenCalled();
    expect(world.registry.stats()).toMatchObject({ sessions: 1, waiting: 0 });
  });

  it('tries again with growing pauses and a fresh ticket, at the satellites that the ticket names', async () => {
    const world = makeWorld();
    const session = await world.open();
    const stream = await session.open(ssh);
    await session.ready;
    await world.clock.advance(60_000);
    world.refusal = new TunnelError('satellite-unreachable');
    world.cut();
    const answer = say(stream, 'at last');
    await world.clock.advance(0);
    const pauses: number[] = [];
    for (let i = 0; i < 6; i++) {
      const next = world.clock.sleeping().find((ms) => ms <= 5_000 && ms !== 1_000) ?? 1_000;
      pauses.push(next);
      await world.clock.advance(next);
    }
    expect(pauses).toEqual([500, 1_000, 2_000, 4_000, 5_000, 5_000]);
    expect(world.dials[0]).toEqual({ ticket, url: 'memory:' });
    expect(world.dials.at(-1)).toEqual({ ticket: 'fresh', url: 'memory:2' });
    expect(world.registry.stats()).toMatchObject({ sessions: 1, waiting: 1 });
    world.refusal = undefined;
    await world.clock.advance(5_000);
    expect(await answer).toBe('at last');
  });

  it('keeps the old ticket while the server is unreachable', async () => {
    const world = makeWorld();
    const session = await world.open({ renewTicket: () => Promise.reject(new Error('no server')) });
    const stream = await session.open(ssh);
    await session.ready;
    world.refusal = new TunnelError('agent-not-connected');
    world.cut();
    await world.clock.advance(500);
    await world.clock.advance(1_000);
    world.refusal = undefined;
    await world.clock.advance(5_000);
    expect(await say(stream, 'still')).toBe('still');
  });

  it('holds a bounded amount meanwhile, and the writer waits', async () => {
    const world = makeWorld();
    const session = await world.open();
    const stream = await session.open(ssh);
    await session.ready;
    world.refusal = new TunnelError('satellite-unreachable');
    world.cut();
    await turn();
    const sent = randomBytes(32 * 1024 * 1024);
    const got: Buffer[] = [];
    stream.on('data', (chunk: Buffer) => got.push(chunk));
    const before = process.memoryUsage().arrayBuffers;
    let finished = false;
    stream.end(sent, () => {
      finished = true;
    });
    for (let i = 0; i < 300; i++) await turn();
    expect(finished).toBe(false);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(3 * maxBufferedBytes);
    world.refusal = undefined;
    await world.clock.advance(5_000);
    await once(stream, 'end');
    expect(Buffer.concat(got).equals(sent)).toBe(true);
  });

  it('costs nothing while nothing is said: one acknowledgement after a burst, then silence', async () => {
    const world = makeWorld();
    const session = await world.open();
    const stream = await session.open(ssh);
    await say(stream, 'x');
    await world.clock.advance(1_000);
    const sends = world.paths[0]!.map((end) => vi.spyOn(end, 'send'));
    await world.clock.advance(3600_000);
    expect(sends.map((send) => send.mock.calls.length)).toEqual([0, 0]);
  });
});

describe('a session is over, with that reason, when', () => {
  async function losing(more: Partial<SessionOptions> = {}, host: Partial<SessionRegistryOptions> = {}) {
    const world = makeWorld(host);
    const session = await world.open(more);
    const stream = await session.open(ssh);
    const broken = once(stream, 'error').then(([error]) => error as TunnelError);
    await session.ready;
    world.refusal = new TunnelError('agent-not-connected');
    world.cut();
    await world.clock.advance(0);
    return { world, session, broken };
  }

  it('no path comes back in time, at both ends', async () => {
    const { world, session, broken } = await losing({ waitMs: 3_600_000 });
    await world.clock.advance(3_599_000);
    expect(world.registry.stats().waiting).toBe(1);
    await world.clock.advance(1_000);
    expect((await session.closed).reason).toBe('session-abandoned');
    expect(await broken).toEqual(code('session-abandoned'));
    expect((await world.sessions[0]!.closed).reason).toBe('session-abandoned');
    expect(world.registry.stats()).toMatchObject({ sessions: 0, waiting: 0 });
  });

  it('the agent waits for a shorter time: a client that comes later learns that', async () => {
    const { world, session } = await losing({}, { waitMs: 60_000 });
    await world.clock.advance(60_000);
    expect((await world.sessions[0]!.closed).reason).toBe('session-abandoned');
    world.refusal = undefined;
    await world.clock.advance(5_000);
    expect((await session.closed).reason).toBe('session-abandoned');
  });

  it('another agent answers: this one was restarted', async () => {
    const { world, session } = await losing();
    world.refusal = undefined;
    world.agent = makeWorld().registry.accept;
    await world.clock.advance(5_000);
    expect((await session.closed).reason).toBe('agent-restarted');
  });

  it('the server names another agent', async () => {
    const { world, session } = await losing({
      renewTicket: async () => ({ ticket: 'fresh', agentKey: 'another', satellites: [] }),
    });
    await world.clock.advance(5_000);
    await world.clock.advance(5_000);
    expect((await session.closed).reason).toBe('agent-restarted');
  });

  it('the server refuses a ticket for good', async () => {
    const { world, session, broken } = await losing({
      renewTicket: () => Promise.reject(new TunnelError('ticket-refused', 'Ada is suspended.')),
    });
    await world.clock.advance(5_000);
    await world.clock.advance(5_000);
    expect((await session.closed).error?.message).toContain('Ada is suspended.');
    expect(await broken).toEqual(code('ticket-refused'));
  });

  it('the agent closes it meanwhile', async () => {
    const { world, session } = await losing();
    world.registry.close();
    world.refusal = undefined;
    await world.clock.advance(5_000);
    expect((await session.closed).reason).toBe('agent-closed');
  });

  it('too many wait: the longest waiting ends, and new clients are accepted', async () => {
    const world = makeWorld({ maxWaiting: 2 });
    const all = [];
    for (let i = 0; i < 3; i++) {
      all.push(await world.open());
      await all[i]!.ready;
    }
    world.refusal = new TunnelError('satellite-unreachable');
    for (const [client] of world.paths) {
      client.cut(new TunnelError('satellite-lost'));
      await world.clock.advance(0);
    }
    expect((await world.sessions[0]!.closed).reason).toBe('session-displaced');
    expect(world.registry.stats()).toMatchObject({ sessions: 2, waiting: 2 });
    // Sessions whose clients disappeared do not block new ones.
    world.refusal = undefined;
    const fresh = await world.open();
    await fresh.ready;
    expect(world.registry.stats()).toMatchObject({ sessions: 3, waiting: 2 });
  });

  it('the client never said that it would come back', async () => {
    const world = makeWorld();
    const session = await world.open({ renewTicket: undefined });
    await session.ready;
    world.cut();
    expect((await session.closed).reason).toBe('satellite-lost');
    expect((await world.sessions[0]!.closed).reason).toBe('satellite-lost');
  });
});

describe('nobody else can resume a session', () => {
  /** What a path's other end says, as bytes. */
  function listen(path: Path): { bytes(): Buffer; closed: Promise<void> } {
    const got: Buffer[] = [];
    let over = () => {};
    const closed = new Promise<void>((resolve) => {
      over = resolve;
    });
    path.start({ data: (chunk) => got.push(Buffer.from(chunk)), drain() {}, closed: () => over() });
    return { bytes: () => Buffer.concat(got), closed };
  }
  const attempt = (world: ReturnType<typeof makeWorld>) => {
    const [mine, theirs] = makePathPair();
    world.registry.accept(theirs);
    return { path: mine, ...listen(mine) };
  };

  /** A session that has resumed once, and all that a satellite has seen the client say on that path. */
  async function recorded() {
    const world = makeWorld();
    const session = await world.open();
    const stream = await session.open(ssh);
    await say(stream, 'x');
    await world.clock.advance(60_000);
    const seen: Buffer[] = [];
    const connect = world.connect;
    world.connect = () => {
      const path = connect();
      const { send } = path;
      path.send = (chunk) => {
        seen.push(Buffer.from(chunk));
        return send(chunk);
      };
      return path;
    };
    world.cut();
    await say(stream, 'y');
    return { world, stream, seen };
  }

  it('by replaying what it saw', async () => {
    const { world, stream, seen } = await recorded();
    const { path, bytes, closed } = attempt(world);
    for (const chunk of seen) path.send(chunk);
    await closed;
    expect(bytes().toString('latin1')).toContain('resume-proof-invalid');
    expect(await say(stream, 'mine')).toBe('mine');
    expect(world.registry.stats()).toMatchObject({ sessions: 1, waiting: 0 });
  });

  it('by a proof of its own making, or by asking for what there is not', async () => {
    const { world, stream, seen } = await recorded();
    const forged = attempt(world);
    forged.path.send(seen[0]!);
    forged.path.send(resumeFrame(Buffer.concat([Buffer.of(3), randomBytes(32)]), 0));
    await forged.closed;
    expect(forged.bytes().toString('latin1')).toContain('resume-proof-invalid');
    const unknown = attempt(world);
    unknown.path.send(resumeFrame(Buffer.concat([Buffer.of(1), randomBytes(32)]), 0));
    await unknown.closed;
    expect(unknown.bytes().toString('latin1')).toContain('session-unknown');
    expect(await say(stream, 'mine')).toBe('mine');
  });

  it('by impersonating the agent: the client keeps looking for the real one', async () => {
    const world = makeWorld();
    const session = await world.open();
    const stream = await session.open(ssh);
    await session.ready;
    await world.clock.advance(60_000);
    const real = world.agent;
    world.agent = (path) => {
      path.start({
        data() {
          path.send(resumeFrame(Buffer.concat([Buffer.of(2), randomBytes(48)]), 0));
        },
        drain() {},
        closed() {},
      });
    };
    world.cut();
    const answer = say(stream, 'to the right one');
    await world.clock.advance(0);
    expect(world.registry.stats().waiting).toBe(1);
    world.agent = real;
    await world.clock.advance(5_000);
    expect(await answer).toBe('to the right one');
  });

  it('by saying anything at all: every path ends with a named reason, and the session does not', async () => {
    const { world, stream } = await recorded();
    const until = performance.now() + 2_000;
    await fc.assert(
      fc.asyncProperty(
        fc.array(
          fc.oneof(
            fc.uint8Array({ maxLength: 100 }).map((bytes) => Buffer.from(bytes)),
            // Something that begins like a frame.
            fc
              .tuple(
                fc.integer({ min: 1, max: 6 }),
                fc.nat({ max: 70 }),
                fc.nat({ max: 9 }),
                fc.uint8Array({ maxLength: 70 }),
              )
              .map(([type, length, position, bytes]) => {
                const header = Buffer.alloc(16);
                header[0] = 1;
                header[1] = type;
                header.writeUInt32BE(length, 4);
                header.writeUInt32BE(position, 12);
                return Buffer.concat([header, Buffer.from(bytes)]);
              }),
          ),
          { maxLength: 6 },
        ),
        async (chunks) => {
          const { path } = attempt(world);
          for (const chunk of chunks) path.send(chunk);
          for (let i = 0; i < 3; i++) await turn();
          path.close();
          await turn();
        },
      ),
      { numRuns: 2_000, interruptAfterTimeLimit: until - performance.now() },
    );
    expect(await say(stream, 'mine')).toBe('mine');
    await vi.waitUntil(() => world.registry.stats().sessions === 1);
  });
});
