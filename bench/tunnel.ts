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
import { type PathKind, pathKinds } from '@cde/tunnel/path.ts';
import { formatAddress, listenDirect } from '@cde/tunnel/paths/direct-tcp.ts';
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
 * throughput each way, the echo of 64 bytes, and the time to open a session, by relay and by a direct connection to
 * the agent, each beside a plain TCP connection to the same program in the same run. Medians; only the ratios carry over to other machines.
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
    offers: {
      current: () => ({
        paths: pathKinds,
        satellites: [],
        addresses: [formatAddress('127.0.0.1', direct.port)],
      }),
      onChange: () => () => {},
    },
    udp: { bindAddress: '127.0.0.1', stun: () => undefined },
  });
  const direct = await listenDirect({ host: '127.0.0.1', port: 0, onPath: reception.accept });
  listenRelay({
    url: setup.url,
    listenToken: async () => setup.listenToken,
    onPath: (path) => reception.accept(path),
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
      paths: [...pathKinds],
      jti: randomUUID(),
      exp,
    });
    const dial = (kind: PathKind) =>
      openSession({
        ticket,
        agentKey,
        satellites: [{ name: 'bench', url }],
        clientPrivateKey: clientKey.privateKey,
        // As the CLI's sessions: one that goes on after its path.
        renewTicket: () => Promise.reject(new Error('the benchmark loses no path')),
        steer: { paths: [kind] },
        udp: { bindAddress: '127.0.0.1' },
      });

    const openTimes: number[] = [];
    for (let i = 0; i < 20; i++) {
      const startedAt = performance.now();
      const one = await dial('relay');
      const stream = await one.open({ kind: 'tcp', host: '127.0.0.1', port });
      openTimes.push(performance.now() - startedAt);
      stream.on('error', () => {});
      one.close();
    }

    const sessions = {
      relay: await dial('relay'),
      direct: await dial('direct-tcp'),
      udp: await dial('direct-udp'),
    };
    const ways = {
      plain: () => plain(port),
      relay: () => throughSession(sessions.relay, port),
      direct: () => throughSession(sessions.direct, port),
      udp: () => throughSession(sessions.udp, port),
    };
    const names = ['download MB/s', 'upload MB/s', 'echo p50 µs', 'echo p99 µs'] as const;
    const empty = () => ({
      plain: [] as number[],
      relay: [] as number[],
      direct: [] as number[],
      udp: [] as number[],
    });
    const results = Object.fromEntries(names.map((name) => [name, empty()]));
    for (let round = 0; round < rounds; round++) {
      for (const [name, open] of Object.entries(ways) as [keyof typeof ways, () => Promise<Duplex>][]) {
        results['download MB/s']![name].push(await download(await open()));
        results['upload MB/s']![name].push(await upload(await open()));
        const times = await echo(await open());
        results['echo p50 µs']![name].push(percentile(times, 0.5));
        results['echo p99 µs']![name].push(percentile(times, 0.99));
      }
    }
    if (Object.values(sessions).some(({ path }, i) => path.kind !== pathKinds[i]))
      throw new Error('a session has left the path that it was to be measured on');
    for (const session of Object.values(sessions)) session.close();

    console.log(`${rounds} rounds of ${bulkBytes / 2 ** 20} MiB and ${echoes} echoes, medians`);
    const cell = (text: string) => text.padStart(13);
    const columns = ['plain TCP', ...pathKinds, 'relay/plain', 'tcp/plain', 'tcp/relay', 'udp/relay'];
    console.log(`${' '.repeat(16)}${columns.map(cell).join('')}`);
    for (const [name, { plain, relay, direct, udp }] of Object.entries(results)) {
      const [a, b, c, d] = [plain, relay, direct, udp].map((values) => percentile(values, 0.5)) as [
        number,
        number,
        number,
        number,
      ];
      const values = [a, b, c, d].map((value) => value.toFixed(0));
      const ratios = [b / a, c / a, c / b, d / b].map((value) => value.toFixed(2));
      console.log(`${name.padEnd(16)}${[...values, ...ratios].map(cell).join('')}`);
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
