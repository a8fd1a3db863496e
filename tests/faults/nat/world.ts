import { type ChildProcess, spawn } from 'node:child_process';
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { makeCertificate } from '@cde/tunnel/auth/certificate.ts';
import { makeClientKey } from '@cde/tunnel/auth/keys.ts';
import { makeTicketSigner } from '@cde/tunnel/auth/ticket.ts';
import type { NetcheckReport, NetcheckSatellite } from '@cde/tunnel/netcheck/netcheck.ts';
import type { PathKind } from '@cde/tunnel/pipe/path.ts';
import type { PathChange } from '@cde/tunnel/selection/history.ts';
import { vi } from 'vitest';
import { compileCache } from '../../kit/compile-cache.ts';
import { makeNatWorld, type Nat } from './network.ts';

/** The programs' input. */
export interface Given {
  port: number;
  url: string;
  stun: string;
  ticketKey: string;
  listenToken: string;
  agent: { tlsKey: string; tlsCert: string; agentKey: string; workspaceId: string };
  client: { ticket: string; privateKey: string; paths: PathKind[] };
  /** For `measure`. */
  places: NetcheckSatellite[];
}

const program = fileURLToPath(new URL('program.ts', import.meta.url));
const port = 7090;
/** On a busy machine a search for a path may fail, and the next one follows after 60 s. */
const patience = { timeout: 150_000, interval: 50 };

interface Program {
  child: ChildProcess;
  /** Everything it has printed, oldest first. */
  said: Record<string, unknown>[];
  /** Sends a line, and resolves to the value of `key` in the next line that has it. */
  ask<T>(line: string, key: string): Promise<T>;
  end(): Promise<void>;
}

function startProgram(
  prefix: string[],
  kind: 'satellite' | 'agent' | 'client' | 'measure',
  given: Partial<Given>,
): Program {
  const [command, ...words] = [...prefix, process.execPath, program, kind];
  const child = spawn(command!, words, {
    stdio: ['pipe', 'pipe', 'inherit'],
    env: { ...process.env, ...compileCache, NAT_TEST: JSON.stringify(given) },
  });
  const said: Program['said'] = [];
  createInterface(child.stdout!).on('line', (line) => said.push(JSON.parse(line)));
  const one: Program = {
    child,
    said,
    async ask<T>(line: string, key: string) {
      const from = said.length;
      child.stdin!.write(`${line}\n`);
      const found = () => said.slice(from).find((each) => key in each);
      await vi.waitFor(() => {
        if (!found()) throw new Error(`${kind} did not print ${key}: ${JSON.stringify(said.slice(-3))}`);
      }, patience);
      return found()![key] as T;
    },
    async end() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      child.kill('SIGKILL');
      await once(child, 'exit');
    },
  };
  return one;
}

const saysReady = (one: Program) =>
  vi.waitFor(() => {
    if (!one.said.some((each) => each.ready)) throw new Error('not ready');
  }, patience);

/** Runs `cde netcheck` behind a NAT, against two public satellites. */
export async function checkNet(nat: Nat): Promise<NetcheckReport> {
  const world = makeNatWorld(nat, 'cone');
  const ports = [port, port + 1];
  const places = ports.map((at) => ({
    name: `at-${at}`,
    region: '',
    url: `http://${world.address}:${at}`,
    stun: `${world.address}:${at}`,
  }));
  const satellites = ports.map((at, index) =>
    startProgram(world.prefix, 'satellite', {
      port: at,
      stun: places[index]!.stun,
      ticketKey: makeTicketSigner(generateKeyPairSync('ed25519').privateKey).publicKey,
    }),
  );
  const measuring: Program[] = [];
  try {
    for (const one of satellites) await saysReady(one);
    const one = startProgram(world.homes[0].prefix, 'measure', { places });
    measuring.push(one);
    await once(one.child, 'exit');
    return one.said.find((each) => 'report' in each)!.report as NetcheckReport;
  } finally {
    for (const each of [...satellites, ...measuring]) await each.end();
    world.remove();
  }
}

/** A public satellite, an agent behind the first NAT, a client behind the second. */
export async function makeSession(nats: [Nat, Nat], paths: PathKind[] = ['relay', 'direct-udp']) {
  const world = makeNatWorld(...nats);
  const programs: Program[] = [];
  const signer = makeTicketSigner(generateKeyPairSync('ed25519').privateKey);
  const certificate = await makeCertificate();
  const clientKey = makeClientKey();
  const workspaceId = randomUUID();
  const exp = Math.floor(Date.now() / 1000) + 3600;
  const given: Given = {
    port,
    url: `http://${world.address}:${port}`,
    stun: `${world.address}:${port}`,
    ticketKey: signer.publicKey,
    listenToken: await signer.signListenToken({ workspaceId, buildId: randomUUID(), exp }),
    agent: {
      tlsKey: certificate.key,
      tlsCert: certificate.cert,
      agentKey: certificate.fingerprint,
      workspaceId,
    },
    client: {
      ticket: await signer.signTicket({
        workspaceId,
        workspace: 'ada/hello',
        userId: randomUUID(),
        username: 'ada',
        agentKey: certificate.fingerprint,
        clientKey: clientKey.publicKey,
        satellites: ['hub'],
        paths: ['relay', 'direct-udp'],
        jti: randomUUID(),
        exp,
      }),
      privateKey: clientKey.privateKey.export({ type: 'pkcs8', format: 'pem' }) as string,
      paths,
    },
    places: [],
  };

  const start = (prefix: string[], kind: 'satellite' | 'agent' | 'client') => {
    const one = startProgram(prefix, kind, given);
    programs.push(one);
    return one;
  };

  async function close(): Promise<void> {
    for (const each of programs) await each.end();
    world.remove();
  }
  try {
    const satellite = start(world.prefix, 'satellite');
    await saysReady(satellite);
    const agent = start(world.homes[0].prefix, 'agent');
    await saysReady(agent);
    const client = start(world.homes[1].prefix, 'client');
    const changes = () => client.said.flatMap(({ change }) => (change as PathChange) ?? []);
    return {
      ...world,
      satellite,
      agent,
      client,
      changes,
      what: () => changes().map(({ what, kind }) => `${what} ${kind}`),
      /** Waits for a path change after the first `after` ones. */
      async until(wanted: string, after = 0): Promise<PathChange> {
        const find = () =>
          changes()
            .slice(after)
            .find(({ what, kind }) => `${what} ${kind}` === wanted);
        await vi.waitFor(() => {
          if (!find()) throw new Error(`no ${wanted}: ${JSON.stringify(changes().slice(-5))}`);
        }, patience);
        return find()!;
      },
      /** Waits for the echo of this many more bytes. */
      async more(bytes: number): Promise<void> {
        const got = async () => (await client.ask<{ got: number }>('tell', 'talk')).got;
        const before = await got();
        await vi.waitFor(async () => {
          if ((await got()) < before + bytes) throw new Error('too few bytes were echoed');
        }, patience);
      },
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}
