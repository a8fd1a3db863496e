/**
 * The programs that run in their own network namespaces: a satellite with STUN, an agent, a client, or a netcheck.
 * Started as `node program.ts KIND` with their input as JSON in NAT_TEST. They print a line of JSON for each event.
 */
import { createPrivateKey, randomBytes } from 'node:crypto';
import { flushCompileCache } from 'node:module';
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

// Otherwise only a process that ends by itself writes it.
flushCompileCache();

const given = JSON.parse(process.env.NAT_TEST!) as Given;
/**
 * Each way, on each leg of the relay: a round trip of 100 ms. A direct path must beat it by 25 %, whatever a busy machine
 * adds to either.
 */
const delayMs = 25;
const say = (line: object) => process.stdout.write(`${JSON.stringify(line)}\n`);

async function satellite(): Promise<void> {
  const relay = makeRelay({ ticketKeys: [given.ticketKey] });
  const app = Fastify({ forceCloseConnections: true });
  await app.register(relayPlugin, { relay });
  await app.listen({ host: '127.0.0.1', port: given.port });
  // As distant as a real satellite; otherwise no other path could be better.
  createServer({ noDelay: true }, (client) => {
    const relayed = connect({ host: '127.0.0.1', port: given.port, noDelay: true });
    delayed(client, relayed);
    delayed(relayed, client);
  }).listen(given.port, given.stun.split(':')[0]);
  // Bound to one address, so that answers come from the address that was asked.
  const stun = await serveStun({ host: given.stun.split(':')[0]!, port: given.port });
  say({ ready: true });
  // Any line requests statistics.
  createInterface(process.stdin).on('line', () => say({ stats: { ...relay.stats(), stun: stun.stats() } }));
}

function delayed(from: Socket, to: Socket): void {
  from.on('data', (chunk) => setTimeout(() => to.writable && to.write(chunk), delayMs));
  from.once('end', () => setTimeout(() => to.end(), delayMs));
  from.once('close', () => setTimeout(() => to.destroy(), 2 * delayMs));
  from.on('error', () => {});
}

async function agent(): Promise<void> {
  const paths = ['relay', 'direct-udp'] as const;
  const registry = makeSessionRegistry({
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
    onPath: (path) => registry.accept(path),
    onState: (connected) => say({ ready: connected }),
  });
}

/** Sends random bytes and compares their echo until it is told to stop. */
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
  // Rate-limited, so that the measurements beside it reflect the network and not the CPU.
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

/** Like `cde netcheck`. */
async function measure(): Promise<void> {
  say({ report: await netcheck(given.places, { signal: AbortSignal.timeout(30_000) }) });
}

await { satellite, agent, client, measure }[process.argv[2] as 'satellite']();
