import { describe, expect, onTestFinished, test } from 'vitest';
import { type Nat, whyNoWorld } from './nat/network.ts';
import { checkNet, makeSession } from './nat/world.ts';

/**
 * Sessions between two homes, each behind its own NAT, with a public satellite: three processes in five network
 * namespaces. The client sends random bytes throughout, and compares what is echoed.
 */
const lacking = whyNoWorld();
if (lacking) console.log(`NAT tests are skipped: ${lacking}`);

interface Stats {
  bytesToAgents: number;
  bytesToClients: number;
  stun: { answered: number };
}

async function between(...nats: [Nat, Nat]) {
  const session = await makeSession(nats);
  onTestFinished(() => session.close());
  return session;
}

/** Stops the client, and checks that everything it sent was echoed unchanged. */
async function stopAndVerify({ client }: Awaited<ReturnType<typeof between>>): Promise<number> {
  const bytes = await client.ask<number>('stop', 'whole');
  expect(client.said.filter((each) => 'wrong' in each || 'closed' in each)).toEqual([]);
  return bytes;
}

describe.skipIf(lacking)('between two NATs', () => {
  test.each([
    ['cone', 'cone'],
    ['open', 'symmetric'],
    ['symmetric', 'open'],
  ] as [Nat, Nat][])('%s and %s: a session moves to direct-udp', async (one, other) => {
    const session = await between(one, other);
    const moved = await session.until('moved direct-udp');
    // The agent's public address.
    expect(moved.via).toMatch(new RegExp(`^${session.homes[0].outside.replaceAll('.', '\\.')}:\\d+$`));
    await session.more(1_000_000);
    const before = await session.satellite.ask<Stats>('', 'stats');
    await session.more(3_000_000);
    const after = await session.satellite.ask<Stats>('', 'stats');
    const relayed = (stats: Stats) => stats.bytesToAgents + stats.bytesToClients;
    expect(relayed(after) - relayed(before)).toBeLessThan(50_000);
    expect(after.stun.answered).toBeGreaterThan(1);
    expect(await stopAndVerify(session)).toBeGreaterThan(4_000_000);
  });

  test.each([
    ['cone', 'symmetric'],
    ['symmetric', 'symmetric'],
    ['cone', 'blocked'],
  ] as [Nat, Nat][])('%s and %s: a session stays on the relay, and records why', async (one, other) => {
    const session = await between(one, other);
    const { text } = await session.until('unavailable direct-udp');
    const [agent, client] = session.homes;
    const seen =
      other === 'blocked' ? `STUN at ${session.address}:7090 does not answer` : `${client.outside} (by STUN)`;
    expect(text).toContain(`no path from ${client.inside}`);
    expect(text).toContain(seen);
    expect(text).toContain(`to ${agent.inside}, ${agent.outside} (by STUN)`);
    await session.more(1_000_000);
    await stopAndVerify(session);
    expect(session.what().filter((each) => each !== 'unavailable direct-udp')).toEqual(['opened relay']);
  });

  test('a NAT that starts to drop UDP: the session resumes on the relay, and returns to UDP later', async () => {
    const session = await between('cone', 'cone');
    await session.until('moved direct-udp');
    await session.more(1_000_000);
    session.homes[1].dropUdp(true);
    expect(await session.until('lost direct-udp')).toMatchObject({
      reason: 'path-lost',
      // Not the silence of 15 s. Whichever end notices first tells the other.
      text: expect.stringMatching(/no answer to what was sent|the agent receives nothing over this path/),
    });
    await session.until('resumed relay');
    await session.more(1_000_000);
    session.homes[1].dropUdp(false);
    // A failed path is held off for 30 s.
    await session.until('moved direct-udp', session.what().indexOf('resumed relay'));
    await session.more(1_000_000);
    await stopAndVerify(session);
  });

  test.each([
    ['cone', 'endpoint-independent'],
    ['open', 'endpoint-independent'],
    ['symmetric', 'endpoint-dependent'],
    ['blocked', 'unknown'],
  ] as [Nat, string][])('cde netcheck behind %s says %s', async (nat, kind) => {
    const { nat: found, udp, satellites } = await checkNet(nat);
    expect({ found, udp }).toEqual({ found: kind, udp: nat !== 'blocked' });
    for (const { https, udp } of satellites) {
      expect(https.error).toBeNull();
      expect(udp.answered).toBe(nat !== 'blocked');
      if (nat !== 'blocked') expect(udp.train).toMatchObject({ sent: 20, received: 20 });
    }
  });

  test('the agent is killed: the client notices', async () => {
    const session = await between('cone', 'cone');
    await session.until('moved direct-udp');
    await session.agent.end();
    expect(await session.until('lost direct-udp')).toMatchObject({ reason: 'path-lost' });
  });
});
