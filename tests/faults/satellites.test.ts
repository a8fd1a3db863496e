import { readFile } from 'node:fs/promises';
import type { TicketReply } from '@cde/api/workspaces.ts';
import { makeClientKey } from '@cde/tunnel/auth/keys.ts';
import { openSession, type Session } from '@cde/tunnel/session/session.ts';
import { Client, type ClientChannel } from 'ssh2';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { type Api, makeApi } from '../kit/api.ts';
import { freePort } from '../kit/free-port.ts';
import { type Machine, makeMachine, type Running, type Server } from '../kit/machine.ts';
import { patienceMs, until } from '../kit/until.ts';

/** The server, two satellites as separate processes, and one session that survives the loss of each. */
let machine: Machine;
let server: Server;
let api: Api & { token: string };
const tokens: Record<string, string> = {};
const ports: Record<string, number> = {};
const running: Record<string, Running> = {};

async function start(name: string): Promise<void> {
  running[name] = machine.begin(
    ['satellite', 'start', '--server', server.url, '--listen', `127.0.0.1:${ports[name]}`],
    { CDE_SATELLITE_TOKEN: tokens[name]!, CDE_LOG_LEVEL: 'info' },
  );
  await running[name].says('satellite is registered');
}

/** kill -9 of the satellite itself; its parent, the CLI, then exits too. */
async function kill(name: string): Promise<void> {
  const { pid } = running[name]!.process;
  const text = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8');
  process.kill(Number(text.trim().split(' ')[0]), 'SIGKILL');
  await running[name]!.ended;
}

const url = (name: string) => `http://127.0.0.1:${ports[name]}`;
const shown = async (name: string) =>
  (await api('GET', `/api/v1/satellites/${name}`)).body as {
    state: string;
    load: { sessions: number; agents: number } | null;
  };

beforeAll(async () => {
  // Its satellites listen on loopback, which a workspace with a network of its own reaches only through the server.
  machine = await makeMachine({ CDE_LOCAL_NETWORK: 'shared' });
  server = await machine.start();
  api = await makeApi(machine, server.url);
});
beforeEach(async () => {
  if (server.process.exitCode !== null || server.process.signalCode !== null) server = await machine.start();
  for (const name of ['east', 'west']) {
    // From an earlier attempt.
    running[name]?.process.kill('SIGTERM');
    await running[name]?.ended;
    await machine.cde('satellite', 'remove', name, '--yes');
    ports[name] = await freePort();
    const added = await machine.cde('satellite', 'add', name, '--region', `the ${name}`);
    expect(added).toMatchObject({ code: 0, stdout: expect.stringMatching(/^cde_satellite_\S+\n$/) });
    tokens[name] = added.stdout.trim();
    await start(name);
  }
  // Its new agent gets all satellites in its first manifest.
  expect(await machine.cde('restart', 'hello')).toMatchObject({ code: 0 });
});
afterAll(() => machine?.remove());

const key = makeClientKey();
/** A ticket for these two only, because the server's own satellite would be chosen first. */
async function ticket(): Promise<TicketReply> {
  const reply = await api('POST', '/api/v1/workspaces/hello/tickets', { clientKey: key.publicKey });
  if (reply.status !== 200) throw new Error(JSON.stringify(reply.body));
  return { ...reply.body, satellites: reply.body.satellites.slice(1) };
}

/** Runs a shell command in the workspace, over SSH in a separate session. */
async function run(session: Session, username: string, command: string): Promise<ClientChannel> {
  const client = new Client();
  const stream = await session.open({ kind: 'ssh' });
  return new Promise((resolve, reject) => {
    client.on('error', reject);
    client.on('ready', () =>
      client.exec(command, (error, channel) => (error ? reject(error) : resolve(channel))),
    );
    client.connect({ sock: stream, username, authHandler: ['none'], keepaliveInterval: 0 });
  });
}

test('a session survives kill -9 and draining of its satellite, and works without the server', async () => {
  const first = await ticket();
  expect(first.satellites.map(({ name }) => name)).toEqual(['east', 'west']);
  const resumed: string[] = [];
  const session = await openSession({
    ...first,
    clientPrivateKey: key.privateKey,
    renewTicket: ticket,
    onPath: (what, reason) => what === 'resumed' && resumed.push(reason.code),
  });
  const counting = await run(session, first.username, 'while read line; do echo "got $line"; done');
  let got = '';
  counting.on('data', (chunk: Buffer) => {
    got += chunk.toString();
  });
  let sent = '';
  let count = 0;
  const say = async () => {
    counting.write(`${++count}\n`);
    sent += `got ${count}\n`;
    await until(
      async () => got,
      (all) => all === sent,
    );
  };
  await say();
  expect(session.path.via).toBe(url('east'));

  await kill('east');
  await say();
  expect(session.path.via).toBe(url('west'));
  await start('east');

  // Without the server the session continues, and the satellite reports that the server is unreachable.
  await server.kill();
  await running.west!.says('serving without it');
  await say();
  server = await machine.start();
  await running.west!.says('the server is reachable again');
  await until(
    () => shown('east'),
    ({ state }) => state === 'online',
  );

  expect(await machine.cde('satellite', 'drain', 'west')).toMatchObject({ code: 0 });
  await until(
    async () => session.path.via,
    (via) => via === url('east'),
  );
  await say();
  await until(
    () => shown('west'),
    ({ state }) => state === 'drained',
  );

  expect((await machine.cde('satellite', 'list')).stdout).toMatch(/^west\tthe west\tdrained\t0\t/m);

  // Ctrl-C at the satellite in use: it also moves its session, once another satellite is available.
  await machine.cde('satellite', 'drain', 'west', '--undo');
  await until(
    () => shown('west'),
    ({ state, load }) => state === 'online' && load?.agents === 1,
    // The order comes with a heartbeat, agents follow at their next report, and another heartbeat tells: up to 90 s if nothing
    // is late.
    2 * patienceMs,
  );
  running.east!.process.kill('SIGTERM');
  expect((await running.east!.ended).code).toBe(0);
  await say();
  expect(session.path.via).toBe(url('west'));
  expect(resumed).toHaveLength(3);
  expect(resumed.slice(1)).toEqual(['satellite-draining', 'satellite-draining']);

  session.close();
  expect(await machine.cde('satellite', 'remove', 'west', '--yes')).toMatchObject({ code: 0 });
  expect(await running.west!.ended).toMatchObject({
    code: 4,
    stderr: expect.stringContaining('the server rejects this satellite (401 token-invalid)'),
  });
});
