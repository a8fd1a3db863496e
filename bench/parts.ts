import { type ChildProcess, spawn } from 'node:child_process';
import { createPrivateKey, generateKeyPairSync, randomBytes, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer } from 'node:net';
import type { Duplex } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { formatAddress } from '@cde/api/host-port.ts';
import { relayPlugin } from '@cde/satellite/relay/plugin.ts';
import { makeRelay } from '@cde/satellite/relay/relay.ts';
import { makeCertificate } from '@cde/tunnel/auth/certificate.ts';
import { makeClientKey } from '@cde/tunnel/auth/keys.ts';
import { makeTicketSigner } from '@cde/tunnel/auth/ticket.ts';
import { collectBuffersEarly } from '@cde/tunnel/gc.ts';
import { listenDirect } from '@cde/tunnel/paths/direct-tcp.ts';
import { listenRelay } from '@cde/tunnel/paths/relay.ts';
import { type PathKind, pathKinds } from '@cde/tunnel/pipe/path.ts';
import { makeSessionRegistry } from '@cde/tunnel/session/registry.ts';
import { openSession, type Session } from '@cde/tunnel/session/session.ts';
import { connectTarget } from '@cde/tunnel/streams/targets.ts';
import Fastify from 'fastify';

/** Starts the processes that a session needs besides the server: satellite, agent, and a program in the workspace. */

export const bulkBytes = 128 * 1024 * 1024;

/** What a client needs to open sessions. Plain data, so that it can be sent to another process. */
export interface DialInfo {
  ticket: string;
  agentKey: string;
  clientPrivateKey: string;
  url: string;
  /** The address of the program, as the agent reaches it. */
  host: string;
  port: number;
}

export interface Parts {
  dialInfo: DialInfo;
  satellite: ChildProcess;
  agent: ChildProcess;
  close(): void;
}

interface ProcessLocation {
  /** The address to listen at. */
  host: string;
  /** The command prefix that runs a process there. */
  prefix?: string[];
}
const loopback: ProcessLocation = { host: '127.0.0.1' };

/** Starts this file, or a similar one, as a process with a role, and waits for its first message. */
export async function begin<T>(
  file: string,
  role: string,
  message: unknown,
  { host, prefix = [] }: ProcessLocation = loopback,
): Promise<{ child: ChildProcess; reply: T }> {
  const [program, ...words] = [...prefix, process.execPath, file];
  const child = spawn(program!, words, {
    env: { ...process.env, CDE_BENCH_ROLE: role, CDE_BENCH_HOST: host },
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  child.send(message as string);
  const [reply] = (await Promise.race([
    once(child, 'message'),
    once(child, 'exit').then(([code]) => Promise.reject(new Error(`the ${role} exited with ${code}`))),
  ])) as [T];
  return { child, reply };
}

const thisFile = fileURLToPath(import.meta.url);
export const partsFile = thisFile;

export async function startParts(
  locations: { satellite?: ProcessLocation; agent?: ProcessLocation } = {},
): Promise<Parts> {
  const signer = makeTicketSigner(generateKeyPairSync('ed25519').privateKey);
  const workspaceId = randomUUID();
  const exp = Math.floor(Date.now() / 1000) + 3_600;
  const program = await begin<number>(thisFile, 'program', null, locations.agent);
  const satellite = await begin<string>(thisFile, 'satellite', signer.publicKey, locations.satellite);
  const agent = await begin<string>(
    thisFile,
    'agent',
    {
      url: satellite.reply,
      workspaceId,
      ticketKey: signer.publicKey,
      listenToken: await signer.signListenToken({ workspaceId, buildId: randomUUID(), exp }),
    } satisfies AgentSetup,
    locations.agent,
  );
  const clientKey = makeClientKey();
  const ticket = await signer.signTicket({
    workspaceId,
    workspace: 'bench/bench',
    userId: randomUUID(),
    username: 'bench',
    agentKey: agent.reply,
    clientKey: clientKey.publicKey,
    satellites: ['bench'],
    paths: [...pathKinds],
    jti: randomUUID(),
    exp,
  });
  return {
    dialInfo: {
      ticket,
      agentKey: agent.reply,
      clientPrivateKey: clientKey.privateKey.export({ type: 'pkcs8', format: 'pem' }) as string,
      url: satellite.reply,
      host: (locations.agent ?? loopback).host,
      port: program.reply,
    },
    satellite: satellite.child,
    agent: agent.child,
    close() {
      for (const { child } of [program, satellite, agent]) child.kill();
    },
  };
}

/** Opens a session like the CLI's, which survives the loss of its path. */
export function dial(
  { ticket, agentKey, clientPrivateKey, url }: DialInfo,
  kind: PathKind,
): Promise<Session> {
  return openSession({
    ticket,
    agentKey,
    satellites: [{ name: 'bench', url }],
    clientPrivateKey: createPrivateKey(clientPrivateKey),
    renewTicket: () => Promise.reject(new Error('the benchmark loses no path')),
    steer: { paths: [kind] },
    udp: { bindAddress: '127.0.0.1' },
  });
}

export async function plainTcp(host: string, port: number): Promise<Duplex> {
  const socket = connect({ host, port, noDelay: true, allowHalfOpen: true });
  await once(socket, 'connect');
  return socket;
}

/** Measures `count` echoes of 64 bytes, in microseconds. */
export async function echo(stream: Duplex, echoes: number): Promise<number[]> {
  const times: number[] = [];
  const message = randomBytes(64);
  let answered: () => void = () => {};
  // The mode byte is echoed as well.
  let got = -1;
  stream.on('data', (chunk: Buffer) => {
    got += chunk.length;
    if (got === message.length) {
      got = 0;
      answered();
    }
  });
  stream.write('e');
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

export function percentile(values: readonly number[], q: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))]!;
}

interface AgentSetup {
  url: string;
  workspaceId: string;
  ticketKey: string;
  listenToken: string;
}

const roles: Record<string, (message: never, host: string) => Promise<unknown>> = {
  program: listenProgram,
  satellite: serveSatellite,
  agent: serveAgent,
};
collectBuffersEarly({ smallNewSpace: true, smallHeap: true });
const role = process.argv[1] === thisFile ? process.env.CDE_BENCH_ROLE : undefined;
if (role) {
  const [message] = (await once(process, 'message')) as [never];
  process.on('disconnect', () => process.exit());
  process.send!(await roles[role]!(message, process.env.CDE_BENCH_HOST!));
}

/** The first byte of a connection selects the mode. */
async function listenProgram(_: unknown, host: string): Promise<number> {
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
  server.listen(0, host);
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}

async function serveSatellite(ticketKey: string, host: string): Promise<string> {
  const app = Fastify();
  await app.register(relayPlugin, { relay: makeRelay({ ticketKeys: [ticketKey] }) });
  return app.listen({ port: 0, host });
}

async function serveAgent(setup: AgentSetup, host: string): Promise<string> {
  const { key, cert, fingerprint } = await makeCertificate();
  const registry = makeSessionRegistry({
    tlsKey: key,
    tlsCert: cert,
    workspaceId: setup.workspaceId,
    ticketKeys: [setup.ticketKey],
    agentKey: fingerprint,
    onStream: (target) => (target.kind === 'ssh' ? undefined : connectTarget(target)),
    offers: {
      current: () => ({ paths: pathKinds, satellites: [], addresses: [formatAddress(host, direct.port)] }),
      onChange: () => () => {},
    },
    udp: { bindAddress: host, stun: () => undefined },
  });
  const direct = await listenDirect({ host, port: 0, onPath: registry.accept });
  await new Promise<void>((resolve) =>
    listenRelay({
      url: setup.url,
      listenToken: async () => setup.listenToken,
      onPath: (path) => registry.accept(path),
      onState: (connected) => connected && resolve(),
    }),
  );
  return fingerprint;
}
