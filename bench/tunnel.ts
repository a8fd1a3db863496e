import { type ChildProcess, fork } from 'node:child_process';
import { generateKeyPairSync, randomBytes, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer } from 'node:net';
import type { Duplex } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { relayPlugin } from '@cde/satellite/plugin.ts';
import { makeRelay } from '@cde/satellite/relay.ts';
import { makeCertificate } from '@cde/tunnel/certificate.ts';
import { makeClientKey } from '@cde/tunnel/keys.ts';
import { listenRelay } from '@cde/tunnel/paths/relay.ts';
import { makeReception } from '@cde/tunnel/reception.ts';
import { openSession, type Session } from '@cde/tunnel/session.ts';
import { connectTarget } from '@cde/tunnel/targets.ts';
import { makeTicketSigner } from '@cde/tunnel/ticket.ts';
import Fastify from 'fastify';

/**
 * node bench/tunnel.ts
 *
 * Client, satellite, agent and the program in the workspace as four processes on this machine's loopback;
 * throughput each way, the echo of 64 bytes, and the time to open a session, each beside a plain TCP
 * connection to the same program in the same run. Medians; only the ratios carry over to other machines.
 */
const rounds = 5;
const bulkBytes = 128 * 1024 * 1024;
const echoes = 2_000;

interface Setup {
  url: string;
  workspaceId: string;
  ticketKey: string;
  listenToken: string;
}

const role = process.env.CDE_BENCH_ROLE;
if (role === 'program') await program();
else if (role === 'satellite') await satellite();
else if (role === 'agent') await agent();
else await client();

/** The program in the workspace: the first byte of a connection says what it does. */
async function program(): Promise<void> {
  const block = randomBytes(256 * 1024);
  const server = createServer({ noDelay: true, allowHalfOpen: true }, (socket) => {
    socket.on('error', () => {});
    socket.once('data', (first) => {
      const mode = String.fromCharCode(first[0]!);
      if (mode === 'e') {
        socket.write(first);
        socket.pipe(socket);
      } else if (mode === 'u') {
        socket.resume();
        socket.once('end', () => socket.end('.'));
      } else {
        let left = bulkBytes;
        const more = () => {
          while (left > 0) {
            left -= block.length;
            if (!socket.write(block)) return;
          }
          socket.end();
        };
        socket.on('drain', more);
        more();
      }
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  process.send!((server.address() as AddressInfo).port);
}

async function satellite(): Promise<void> {
  const [ticketKey] = (await once(process, 'message')) as [string];
  const app = Fastify();
  await app.register(relayPlugin, { relay: makeRelay({ ticketKeys: [ticketKey] }) });
  process.send!(await app.listen({ port: 0, host: '127.0.0.1' }));
}

async function agent(): Promise<void> {
  const [setup] = (await once(process, 'message')) as [Setup];
  const { key, cert, fingerprint } = await makeCertificate();
  const reception = makeReception({
    tlsKey: key,
    tlsCert: cert,
    workspaceId: setup.workspaceId,
    ticketKeys: [setup.ticketKey],
    agentKey: fingerprint,
    onStream: (target) => (target.kind === 'ssh' ? undefined : connectTarget(target)),
  });
  listenRelay({
    url: setup.url,
    listenToken: async () => setup.listenToken,
    onPath: reception.accept,
    onState: (connected) => connected && process.send!(fingerprint),
  });
}

async function client(): Promise<void> {
  const children: ChildProcess[] = [];
  const start = async <T>(name: string, message?: unknown): Promise<T> => {
    const child = fork(fileURLToPath(import.meta.url), { env: { ...process.env, CDE_BENCH_ROLE: name } });
    children.push(child);
    if (message) child.send(message as string);
    const [answer] = (await once(child, 'message')) as [T];
    return answer;
  };
  try {
    const signer = makeTicketSigner(generateKeyPairSync('ed25519').privateKey);
    const workspaceId = randomUUID();
    const exp = Math.floor(Date.now() / 1000) + 600;
    const port = await start<number>('program');
    const url = await start<string>('satellite', signer.publicKey);
    const listenToken = await signer.signListenToken({ workspaceId, buildId: randomUUID(), exp });
    const agentKey = await start<string>('agent', {
      url,
      workspaceId,
      ticketKey: signer.publicKey,
      listenToken,
    } satisfies Setup);

    const clientKey = makeClientKey();
    const ticket = await signer.signTicket({
      workspaceId,
      workspace: 'bench/bench',
      userId: randomUUID(),
      username: 'bench',
      agentKey,
      clientKey: clientKey.publicKey,
      satellites: ['bench'],
      jti: randomUUID(),
      exp,
    });
    const dial = () =>
      openSession({
        ticket,
        agentKey,
        satellites: [{ name: 'bench', url }],
        clientPrivateKey: clientKey.privateKey,
        // As the CLI's sessions: one that goes on after its path.
        renewTicket: () => Promise.reject(new Error('the benchmark loses no path')),
      });

    const openTimes: number[] = [];
    for (let i = 0; i < 20; i++) {
      const startedAt = performance.now();
      const one = await dial();
      const stream = await one.open({ kind: 'tcp', host: '127.0.0.1', port });
      openTimes.push(performance.now() - startedAt);
      stream.on('error', () => {});
      one.close();
    }

    const session = await dial();
    const direct = () => plain(port);
    const tunnel = () => throughSession(session, port);
    const results: Record<string, { direct: number[]; tunnel: number[] }> = {
      'download MB/s': { direct: [], tunnel: [] },
      'upload MB/s': { direct: [], tunnel: [] },
      'echo p50 µs': { direct: [], tunnel: [] },
      'echo p99 µs': { direct: [], tunnel: [] },
    };
    for (let round = 0; round < rounds; round++) {
      for (const [name, open] of [
        ['direct', direct],
        ['tunnel', tunnel],
      ] as const) {
        results['download MB/s']![name].push(await download(await open()));
        results['upload MB/s']![name].push(await upload(await open()));
        const times = await echo(await open());
        results['echo p50 µs']![name].push(percentile(times, 0.5));
        results['echo p99 µs']![name].push(percentile(times, 0.99));
      }
    }
    session.close();

    console.log(`${rounds} rounds of ${bulkBytes / 2 ** 20} MiB and ${echoes} echoes, medians`);
    console.log('                    plain TCP      tunnel   tunnel/plain');
    for (const [name, { direct, tunnel }] of Object.entries(results)) {
      const [a, b] = [percentile(direct, 0.5), percentile(tunnel, 0.5)];
      console.log(
        `${name.padEnd(16)} ${a.toFixed(0).padStart(12)} ${b.toFixed(0).padStart(11)} ${(b / a).toFixed(2).padStart(14)}`,
      );
    }
    console.log(
      `session and first stream open: p50 ${percentile(openTimes, 0.5).toFixed(1)} ms, worst of ${openTimes.length} ${Math.max(...openTimes).toFixed(1)} ms`,
    );
  } finally {
    for (const child of children) child.kill();
  }
}

async function plain(port: number): Promise<Duplex> {
  const socket = connect({ host: '127.0.0.1', port, noDelay: true, allowHalfOpen: true });
  await once(socket, 'connect');
  return socket;
}

function throughSession(session: Session, port: number): Promise<Duplex> {
  return session.open({ kind: 'tcp', host: '127.0.0.1', port });
}

async function download(stream: Duplex): Promise<number> {
  const startedAt = performance.now();
  let bytes = 0;
  stream.on('data', (chunk: Buffer) => {
    bytes += chunk.length;
  });
  stream.write('d');
  await once(stream, 'end');
  stream.end();
  return bytes / 1e3 / (performance.now() - startedAt);
}

async function upload(stream: Duplex): Promise<number> {
  const block = randomBytes(256 * 1024);
  const startedAt = performance.now();
  stream.write('u');
  for (let sent = 0; sent < bulkBytes; sent += block.length) {
    if (!stream.write(block)) await once(stream, 'drain');
  }
  stream.end();
  stream.resume();
  await once(stream, 'end');
  return bulkBytes / 1e3 / (performance.now() - startedAt);
}

async function echo(stream: Duplex): Promise<number[]> {
  const times: number[] = [];
  const message = randomBytes(64);
  let answered: () => void = () => {};
  let got = 0;
  stream.on('data', (chunk: Buffer) => {
    got += chunk.length;
    if (got === message.length) {
      got = 0;
      answered();
    }
  });
  // The mode byte is echoed as well.
  stream.write('e');
  got = -1;
  for (let i = 0; i < echoes; i++) {
    const startedAt = performance.now();
    const answer = new Promise<void>((resolve) => {
      answered = resolve;
    });
    stream.write(message);
    await answer;
    times.push((performance.now() - startedAt) * 1e3);
  }
  stream.end();
  return times;
}

function percentile(values: readonly number[], q: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))]!;
}
