import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { setImmediate as turn } from 'node:timers/promises';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { makeCertificate } from '../auth/certificate.ts';
import { makeClientKey } from '../auth/keys.ts';
import { makeTicketSigner } from '../auth/ticket.ts';
import type { Clock } from '../clock.ts';
import { TunnelError } from '../errors.ts';
import { makePathPair, type PairEnd } from '../paths/pair.ts';
import type { Path } from '../pipe/path.ts';
import { makeSessionRegistry } from '../session/registry.ts';
import { openSessionOver } from '../session/session.ts';
import type { PathChange } from './history.ts';

/**
 * steer.ts with a real session and agent, over paths in memory and in virtual time. steer-state.test.ts has the
 * transitions; satellite/sessions has real satellites and direct paths.
 */
const signer = makeTicketSigner(generateKeyPairSync('ed25519').privateKey);
const workspaceId = randomUUID();
const clientKey = makeClientKey();
let certificate: Awaited<ReturnType<typeof makeCertificate>>;
beforeAll(async () => {
  certificate = await makeCertificate();
});
const cleanups: (() => void)[] = [];
afterEach(() => {
  for (const clean of cleanups.splice(0)) clean();
});

/** Time that passes in steps, with a pause for I/O after each. */
function makeClock(): Clock & { advance(ms: number): Promise<void> } {
  let now = 0;
  const sleepers = new Set<{ at: number; wake: () => void }>();
  return {
    now: () => now,
    random: () => 0,
    sleep: (ms, signal) =>
      new Promise((resolve) => {
        if (signal.aborted) return resolve();
        const sleeper = {
          at: now + ms,
          wake() {
            sleepers.delete(sleeper);
            resolve();
          },
        };
        sleepers.add(sleeper);
        signal.addEventListener('abort', sleeper.wake, { once: true });
      }),
    async advance(ms) {
      const end = now + ms;
      while (now < end) {
        now = Math.min(end, now + 100);
        for (const sleeper of [...sleepers]) if (sleeper.at <= now) sleeper.wake();
        for (let i = 0; i < 20; i++) await turn();
      }
    },
  };
}

const eu = { name: 'eu', url: 'memory://eu' };
const us = { name: 'us', url: 'memory://us' };

/** A session on `eu`. Round trips to satellites may be changed at any time; null is unreachable. */
async function makeWorld() {
  const clock = makeClock();
  const rtts: Record<string, number | null> = { [eu.url]: 40, [us.url]: 40 };
  const probes: string[] = [];
  const dials: string[] = [];
  const changes: PathChange[] = [];
  const open: PairEnd[] = [];
  let network = 'home';
  const registry = makeSessionRegistry({
    tlsKey: certificate.key,
    tlsCert: certificate.cert,
    workspaceId,
    ticketKeys: [signer.publicKey],
    agentKey: certificate.fingerprint,
    clock,
    onStream(_target, stream) {
      stream.on('error', () => {});
      stream.pipe(stream);
      return undefined;
    },
  });
  cleanups.push(() => registry.close());
  const connect = (via: string): Path => {
    const [client, agent] = makePathPair();
    open.push(client);
    registry.accept(agent);
    return Object.defineProperty(client, 'via', { value: via });
  };
  const ticket = {
    ticket: await signer.signTicket({
      workspaceId,
      userId: randomUUID(),
      agentKey: certificate.fingerprint,
      clientKey: clientKey.publicKey,
      satellites: ['eu', 'us'],
      jti: randomUUID(),
      exp: Math.floor(Date.now() / 1000) + 600,
    }),
    agentKey: certificate.fingerprint,
    satellites: [eu, us],
  };
  const session = await openSessionOver(connect(eu.url), {
    ...ticket,
    clientPrivateKey: clientKey.privateKey,
    clock,
    renewTicket: async () => ticket,
    onChange: (change) => changes.push(change),
    async dial({ url }) {
      dials.push(url);
      if (rtts[url] === null) throw new TunnelError('satellite-unreachable');
      return connect(url);
    },
    steer: {
      paths: ['relay'],
      networkNow: () => network,
      prober: {
        async rtt(url) {
          probes.push(url);
          const rttMs = rtts[url];
          if (rttMs == null) throw new TunnelError('satellite-unreachable');
          return rttMs;
        },
        close() {},
      },
    },
  });
  cleanups.push(() => session.close());
  await session.ready;
  const stream = await session.open({ kind: 'ssh' });
  stream.on('error', () => {});
  const echo = async (text: string) => {
    const answer = once(stream, 'data');
    stream.write(text);
    return String((await answer)[0]);
  };
  return {
    clock,
    rtts,
    probes,
    dials,
    session,
    echo,
    what: () => changes.map(({ what, via }) => `${what} ${via}`),
    changes,
    enter(name: string) {
      network = name;
    },
    cut: (code: 'satellite-lost' | 'satellite-draining') => open.at(-1)!.cut(new TunnelError(code)),
  };
}

describe('a steered session', () => {
  it('does not measure during its first moment, and then in quick rounds', async () => {
    const world = await makeWorld();
    await world.clock.advance(200);
    expect(world.probes).toEqual([]);
    await world.clock.advance(3_000);
    expect(world.probes.filter((url) => url === us.url)).toHaveLength(4);
  });

  it('stays where it is while no path is better', async () => {
    const world = await makeWorld();
    await world.clock.advance(60_000);
    expect(world.what()).toEqual(['opened memory://eu']);
  });

  it('moves to a better satellite once that is proven, and its streams continue', async () => {
    const world = await makeWorld();
    expect(await world.echo('before')).toBe('before');
    world.rtts[us.url] = 5;
    await world.clock.advance(3_000);
    expect(world.what()).toEqual(['opened memory://eu', 'moved memory://us']);
    expect(world.changes[1]).toMatchObject({
      reason: 'faster',
      text: '35.0 ms better than relay memory://eu',
    });
    expect(world.session.path.via).toBe(us.url);
    expect(await world.echo('after')).toBe('after');
  });

  it('stays, and does not retry at once, if the better satellite cannot be dialled', async () => {
    const world = await makeWorld();
    world.rtts[us.url] = 5;
    await world.clock.advance(1_200);
    world.rtts[us.url] = null;
    await world.clock.advance(10_000);
    expect(world.session.path.via).toBe(eu.url);
    expect(world.what()).toEqual(['opened memory://eu']);
    expect(world.dials.length).toBeLessThanOrEqual(1);
    expect(await world.echo('still here')).toBe('still here');
  });

  it('measures next to nothing while it is unused', async () => {
    const world = await makeWorld();
    await world.clock.advance(60_000);
    const before = world.probes.length;
    await world.clock.advance(1_200_000);
    expect(world.probes.length).toBe(before);
    await world.clock.advance(1_000_000);
    expect(world.probes.length).toBeGreaterThan(before);
  });

  it('measures again at once in another network', async () => {
    const world = await makeWorld();
    await world.clock.advance(60_000);
    const before = world.probes.length;
    world.enter('train');
    await world.clock.advance(60_000);
    expect(world.probes.length).toBeGreaterThan(before);
  });

  it('resumes at the same satellite after a fault of the network', async () => {
    const world = await makeWorld();
    await world.clock.advance(5_000);
    world.cut('satellite-lost');
    await world.clock.advance(500);
    expect(world.what()).toEqual(['opened memory://eu', 'lost memory://eu', 'resumed memory://eu']);
    expect(await world.echo('back')).toBe('back');
  });

  it('resumes at another satellite if its own is draining', async () => {
    const world = await makeWorld();
    await world.clock.advance(5_000);
    world.cut('satellite-draining');
    await world.clock.advance(500);
    expect(world.what()).toEqual(['opened memory://eu', 'lost memory://eu', 'resumed memory://us']);
    expect(await world.echo('back')).toBe('back');
  });
});
