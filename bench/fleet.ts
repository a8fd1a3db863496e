/**
 * The memory and CPU that one satellite uses for many idle agents and idle sessions. Agents and clients run the real
 * code in separate processes. Baseline: the same number of plain `ws` connections to a server that only answers pings,
 * in the same run.
 * Usage: node bench/fleet.ts [AGENTS] [SESSIONS] [SECONDS]. Needs Linux and `ulimit -n` above AGENTS + 2 × SESSIONS.
 */
import { createPrivateKey, generateKeyPairSync, randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { makeCertificate } from '@cde/tunnel/auth/certificate.ts';
import { makeClientKey } from '@cde/tunnel/auth/keys.ts';
import { makeTicketSigner } from '@cde/tunnel/auth/ticket.ts';
import { listenRelay } from '@cde/tunnel/paths/relay.ts';
import { pathKinds } from '@cde/tunnel/pipe/path.ts';
import { makeSessionRegistry } from '@cde/tunnel/session/registry.ts';
import { openSession } from '@cde/tunnel/session/session.ts';
import { connectTarget } from '@cde/tunnel/streams/targets.ts';
import { WebSocket, WebSocketServer } from 'ws';
import { begin, partsFile } from './parts.ts';

interface AgentsSetup {
  url: string;
  ticketKey: string;
  tlsKey: string;
  tlsCert: string;
  agentKey: string;
  agents: { workspaceId: string; listenToken: string }[];
}
interface ClientsSetup {
  url: string;
  agentKey: string;
  clientPrivateKey: string;
  tickets: string[];
}

const thisFile = fileURLToPath(import.meta.url);

async function agents({ url, ticketKey, tlsKey, tlsCert, agentKey, agents }: AgentsSetup): Promise<void> {
  await inTurn(agents, ({ workspaceId, listenToken }) => {
    const registry = makeSessionRegistry({
      tlsKey,
      tlsCert,
      workspaceId,
      ticketKeys: [ticketKey],
      agentKey,
      onStream: (target) => (target.kind === 'ssh' ? undefined : connectTarget(target)),
    });
    return new Promise<void>((resolve) => {
      listenRelay({
        url,
        listenToken: async () => listenToken,
        onPath: (path) => registry.accept(path),
        onState: (connected) => connected && resolve(),
      });
    });
  });
}

async function clients({ url, agentKey, clientPrivateKey, tickets }: ClientsSetup): Promise<void> {
  await inTurn(tickets, async (ticket) => {
    await openSession({
      ticket,
      agentKey,
      satellites: [{ name: 'bench', url }],
      clientPrivateKey: createPrivateKey(clientPrivateKey),
      renewTicket: () => Promise.reject(new Error('the benchmark loses no path')),
      steer: { paths: ['relay'] },
    });
  });
}

async function plainServer(): Promise<number> {
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1', perMessageDeflate: false });
  await new Promise((resolve) => server.once('listening', resolve));
  return (server.address() as { port: number }).port;
}

async function plainClients({ port, count }: { port: number; count: number }): Promise<void> {
  await inTurn(Array.from({ length: count }), async () => {
    const socket = new WebSocket(`ws://127.0.0.1:${port}`, { perMessageDeflate: false });
    await new Promise((resolve) => socket.once('open', resolve));
    setInterval(() => socket.ping(), 30_000);
  });
}

/** Runs all tasks, a few at a time. */
async function inTurn<T>(all: readonly T[], one: (each: T) => Promise<void>): Promise<void> {
  const left = [...all];
  await Promise.all(
    Array.from({ length: 20 }, async () => {
      for (let next = left.pop(); next !== undefined || left.length > 0; next = left.pop())
        await one(next as T);
    }),
  );
}

const pageBytes = 4096;
const rssOf = (pid: number) => Number(readFileSync(`/proc/${pid}/statm`, 'utf8').split(' ')[1]) * pageBytes;
/** CPU time in ms. The kernel counts in hundredths of a second. */
const cpuOf = (pid: number) => {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /, '')
    .split(' ');
  return (Number(fields[11]) + Number(fields[12])) * 10;
};

async function measure(): Promise<void> {
  const [count = 10_000, sessions = 1_000, seconds = 60] = process.argv.slice(2).map(Number);
  const processes = 4;
  const children: { kill(): void }[] = [];
  const start = async <T>(file: string, name: string, message: unknown) => {
    const begun = await begin<T>(file, name, message);
    children.push(begun.child);
    return begun;
  };
  const parts = <T>(all: readonly T[]) =>
    Array.from({ length: processes }, (_, i) => all.filter((__, index) => index % processes === i));
  /** Memory, and the share of a core, while nothing is sent. */
  const rest = async (pid: number) => {
    await delay(10_000);
    const [cpu, began] = [cpuOf(pid), performance.now()];
    await delay(seconds * 1_000);
    return { rss: rssOf(pid), core: (cpuOf(pid) - cpu) / (performance.now() - began) };
  };
  const tell = (what: string, rss: number, of: string, core: number) =>
    console.log(
      `${what.padEnd(34)} ${rss.toFixed(1).padStart(6)} KB ${of}   ${(core * 100).toFixed(1).padStart(5)} % of a core`,
    );
  try {
    const signer = makeTicketSigner(generateKeyPairSync('ed25519').privateKey);
    const exp = Math.floor(Date.now() / 1000) + 3_600;
    const { key, cert, fingerprint } = await makeCertificate();
    const satellite = await start<string>(partsFile, 'satellite', signer.publicKey);
    const pid = satellite.child.pid!;
    await delay(2_000);
    const empty = rssOf(pid);
    const all = await Promise.all(
      Array.from({ length: count }, async () => {
        const workspaceId = randomUUID();
        const listenToken = await signer.signListenToken({ workspaceId, buildId: randomUUID(), exp });
        return { workspaceId, listenToken };
      }),
    );
    const setup = { url: satellite.reply, ticketKey: signer.publicKey, tlsKey: key, tlsCert: cert };
    let began = performance.now();
    await Promise.all(
      parts(all).map((some) =>
        start(thisFile, 'agents', { ...setup, agentKey: fingerprint, agents: some } satisfies AgentsSetup),
      ),
    );
    console.log(`${count} agents listen after ${((performance.now() - began) / 1e3).toFixed(1)} s`);
    const idle = await rest(pid);
    tell('idle agents', (idle.rss - empty) / 1024 / count, 'each', idle.core);

    const clientKey = makeClientKey();
    const tickets = await Promise.all(
      all.slice(0, sessions).map(({ workspaceId }) =>
        signer.signTicket({
          workspaceId,
          workspace: 'bench/bench',
          userId: randomUUID(),
          username: 'bench',
          agentKey: fingerprint,
          clientKey: clientKey.publicKey,
          satellites: ['bench'],
          paths: [...pathKinds],
          jti: randomUUID(),
          exp,
        }),
      ),
    );
    began = performance.now();
    const clientPrivateKey = clientKey.privateKey.export({ type: 'pkcs8', format: 'pem' }) as string;
    await Promise.all(
      parts(tickets).map((some) =>
        start(thisFile, 'clients', {
          url: satellite.reply,
          agentKey: fingerprint,
          clientPrivateKey,
          tickets: some,
        } satisfies ClientsSetup),
      ),
    );
    console.log(`${sessions} sessions open after ${((performance.now() - began) / 1e3).toFixed(1)} s`);
    const busy = await rest(pid);
    tell('idle sessions beside them', (busy.rss - idle.rss) / 1024 / sessions, 'each', busy.core);
    for (const child of children.splice(0)) child.kill();

    const server = await start<number>(thisFile, 'plainServer', null);
    const plainPid = server.child.pid!;
    await delay(2_000);
    const before = rssOf(plainPid);
    await Promise.all(
      Array.from({ length: processes }, () =>
        start(thisFile, 'plainClients', { port: server.reply, count: count / processes }),
      ),
    );
    const plain = await rest(plainPid);
    tell('plain WebSockets, a ping in 30 s', (plain.rss - before) / 1024 / count, 'each', plain.core);
    console.log(
      `ratio of an agent to a plain WebSocket: memory ${((idle.rss - empty) / (plain.rss - before)).toFixed(2)}, CPU ${(idle.core / plain.core).toFixed(2)}`,
    );
  } finally {
    for (const child of children) child.kill();
  }
}

const role = process.env.CDE_BENCH_ROLE;
if (!role) await measure();
else
  process.once('message', (message) => {
    process.on('disconnect', () => process.exit());
    const roles = { agents, clients, plainServer, plainClients };
    void roles[role as keyof typeof roles](message as never).then((reply) => process.send!(reply ?? true));
  });
