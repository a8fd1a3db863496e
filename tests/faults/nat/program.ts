/**
 * One of the programs in networks of their own: a satellite with STUN, an agent, a client, or one that measures the
 * way to satellites. `node program.ts KIND`;
 * what they need comes as JSON in NAT_TEST. Each says a line of JSON for whatever happens.
 */
import { createPrivateKey, randomBytes } from 'node:crypto';
import { connect, createServer, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { relayPlugin } from '@cde/satellite/relay/plugin.ts';
import { makeRelay } from '@cde/satellite/relay/relay.ts';
import { serveStun } from '@cde/satellite/stun/server.ts';
import { netcheck } from '@cde/tunnel/netcheck/netcheck.ts';
import { listenRelay } from '@cde/tunnel/paths/relay.ts';
import { makeSessionRegistry } from '@cde/tunnel/session/registry.ts';
import { openSession } from '@cde/tunnel/session/session.ts';
import Fastify from 'fastify';
import type { Given } from './world.ts';

const given = JSON.parse(process.env.NAT_TEST!) as Given;
/** Each way, on each leg of the relay. */
const delayMs = 5;
const say = (line: object) => process.stdout.write(`${JSON.stringify(line)}\n`);

async function satellite(): Promise<void> {
  const relay = makeRelay({ ticketKeys: [given.ticketKey] });
  const app = Fastify({ forceCloseConnections: true });
  await app.register(relayPlugin, { relay });
  await app.listen({ host: '127.0.0.1', port: given.port });
  // As far away as a satellite is: else a path without it could be no better.
  createServer({ noDelay: true }, (client) => {
    const relayed = connect({ host: '127.0.0.1', port: given.port, noDelay: true });
    late(client, relayed);
    late(relayed, client);
  }).listen(given.port, given.stun.split(':')[0]);
  // Not at any address: the answer to the second home would come from another than was asked.
  const stun = await serveStun({ host: given.stun.split(':')[0]!, port: given.port });
  say({ ready: true });
  // Asked by a line of any kind.
  createInterface(process.stdin).on('line', () => say({ stats: { ...relay.stats(), stun: stun.stats() } }));
}

function late(from: Socket, to: Socket): void {
  from.on('data', (chunk) => setTimeout(() => to.writable && to.write(chunk), delayMs));
  from.once('end', () => setTimeout(() => to.end(), delayMs));
  from.once('close', () => setTimeout(() => to.destroy(), 2 * delayMs));
  from.on('error', () => {});
}

async function agent(): Promise<void> {
  const paths = ['relay', 'direct-udp'] as const;
  const reception = makeSessionRegistry({
    ...given.agent,
    ticketKeys: [given.ticketKey],
    offers: {
      current: () => ({
        paths,
        satellites: [{ name: 'hub', url: given.url, rttMs: listener.rttMs }],
        addresses: [],
      }),
      onChange: () => () => {},
    },
    udp: { stun: () => given.stun, onUnavailable: (error) => say({ unavailable: error.message }) },
    onStream(_target, stream) {
      stream.pipe(stream);
      return undefined;
    },
  });
  const listener = listenRelay({
    url: given.url,
    listenToken: async () => given.listenToken,
    onPath: (path) => reception.accept(path),
    onState: (connected) => say({ ready: connected }),
  });
}

/** Sends and gets back random bytes for as long as it lives, and compares each. */
async function client(): Promise<void> {
  const reply = {
    ticket: given.client.ticket,
    agentKey: given.agent.agentKey,
    satellites: [{ name: 'hub', url: given.url, stun: given.stun }],
  };
  const session = await openSession({
    ...reply,
    clientPrivateKey: createPrivateKey(given.client.privateKey),
    renewTicket: async () => reply,
    onChange: (change) => say({ change }),
    steer: { paths: given.client.paths, times: { firstMs: 100, slowMs: 1_000, idleMs: 1_000 } },
  });
  void session.closed.then(({ reason }) => say({ closed: reason }));
  const stream = await session.open({ kind: 'ssh' });
  const block = randomBytes(1 << 20);
  let sent = 0;
  let got = 0;
  let stopped = false;
  const tell = () => say({ talk: { sent, got, path: session.path.kind } });
  // Not as fast as it can: what is measured beside it should be the way, and not the processor.
  setInterval(() => {
    if (stopped || sent - got > 500_000) return;
    const at = sent % block.length;
    const chunk = block.subarray(at, Math.min(at + 10_000, block.length));
    sent += chunk.length;
    stream.write(chunk);
  }, 5);
  stream.on('data', (chunk: Buffer) => {
    for (let done = 0; done < chunk.length; ) {
      const at = (got + done) % block.length;
      const part = chunk.subarray(done, done + block.length - at);
      if (!part.equals(block.subarray(at, at + part.length))) say({ wrong: got + done });
      done += part.length;
    }
    got += chunk.length;
    if (stopped && sent === got) say({ whole: got });
  });
  createInterface(process.stdin).on('line', (line) => {
    stopped ||= line === 'stop';
    tell();
    if (stopped && sent === got) say({ whole: got });
  });
}

/** As `cde netcheck`, once. */
async function measure(): Promise<void> {
  say({ report: await netcheck(given.places, { signal: AbortSignal.timeout(30_000) }) });
}

await { satellite, agent, client, measure }[process.argv[2] as 'satellite']();
