/**
 * From `create` to the first command's output, with the local provider and a warm server. Baseline: the same process
 * tree started by hand (sandbox, Node with the agent's bundle, startup script, command), in the same run. Prints medians
 * by stage, the overhead of cde, and the ratio. Usage: node bench/create.ts [ROUNDS]
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { makeClient } from '@cde/api/client.ts';
import { createTicket, createWorkspace, deleteWorkspace, getBuildLog, stages } from '@cde/api/workspaces.ts';
import { makeClientKey } from '@cde/tunnel/auth/keys.ts';
import { openSession } from '@cde/tunnel/session/session.ts';
import { Client } from 'ssh2';
import { parse } from 'yaml';
import { median, ms, warmServer } from './harness.ts';

const rounds = Number(process.argv[2] ?? 15);
const bundle = fileURLToPath(new URL('../agent/dist/agent.mjs', import.meta.url));
const template = parse(
  await readFile(new URL('../templates/local/template.yaml', import.meta.url), 'utf8'),
) as { startup: { script: string } };
const { machine, server, url, token } = await warmServer();
const client = makeClient({ url, token });

async function firstOutput(workspace: string): Promise<void> {
  const key = makeClientKey();
  const reply = await client.call(createTicket, {
    params: { workspace },
    body: { clientKey: key.publicKey },
  });
  const session = await openSession({ ...reply, clientPrivateKey: key.privateKey });
  const sock = await session.open({ kind: 'ssh' }, { eager: true });
  const ssh = new Client();
  ssh.connect({ sock, username: reply.username, authHandler: ['none'] });
  await once(ssh, 'ready');
  await new Promise<void>((resolve, reject) =>
    ssh.exec('echo first', (error, channel) => {
      if (error) return reject(error);
      channel.once('data', () => resolve());
    }),
  );
  session.close();
}

async function ours(round: number) {
  const name = `bench-${round}`;
  const began = performance.now();
  const workspace = await client.call(createWorkspace, { body: { name, template: 'local' } });
  const build = workspace.latestBuild!.id;
  for (let after = 0, done = false; !done; ) {
    const log = await client.call(getBuildLog, { params: { build }, query: { after, wait: 20 } });
    after = log.lines.at(-1)?.seq ?? after;
    done = log.done;
    if (done && log.build.status !== 'succeeded') throw new Error(log.build.error?.message);
  }
  const ready = performance.now() - began;
  await firstOutput(name);
  const total = performance.now() - began;
  const { build: ended } = await client.call(getBuildLog, { params: { build } });
  const byStage = Object.fromEntries(
    ended.stages.map((stage) => [stage.name, Date.parse(stage.finishedAt!) - Date.parse(stage.startedAt)]),
  );
  await client.call(deleteWorkspace, { params: { workspace: name }, query: { home: 'discard' } });
  return { ready, total, byStage };
}

const run = async (command: string, args: string[]) => {
  const child = spawn(command, args, {
    stdio: 'ignore',
    env: { PATH: process.env.PATH, HOME: machine.folder },
  });
  await once(child, 'exit');
};
const sandbox = [
  '--ro-bind',
  '/',
  '/',
  '--dev',
  '/dev',
  '--proc',
  '/proc',
  '--tmpfs',
  '/tmp',
  '--unshare-pid',
  '--unshare-ipc',
  '--unshare-uts',
  '--die-with-parent',
];
/** Starts the programs of a workspace one after the other, without a control plane. */
async function byHand(): Promise<number> {
  const began = performance.now();
  await run('bwrap', [...sandbox, '--', process.execPath, bundle, '--version']);
  await run('bash', ['-lc', template.startup.script]);
  await run('bash', ['-c', 'echo first']);
  return performance.now() - began;
}

try {
  await ours(0);
  await byHand();
  const results: Awaited<ReturnType<typeof ours>>[] = [];
  const hand: number[] = [];
  for (let round = 1; round <= rounds; round++) {
    hand.push(await byHand());
    results.push(await ours(round));
  }
  for (const stage of stages)
    console.log(`${stage.padEnd(24)} ${ms(median(results.map((result) => result.byStage[stage] ?? 0)))}`);
  const ready = median(results.map((result) => result.ready));
  const total = median(results.map((result) => result.total));
  const base = median(hand);
  console.log(`${'create to ready'.padEnd(24)} ${ms(ready)}`);
  console.log(
    `${'ready to first output'.padEnd(24)} ${ms(median(results.map((result) => result.total - result.ready)))}`,
  );
  console.log(
    `${'create to first output'.padEnd(24)} ${ms(total)}  (worst ${ms(Math.max(...results.map((result) => result.total))).trim()} of ${rounds})`,
  );
  console.log(`${'by hand'.padEnd(24)} ${ms(base)}`);
  console.log(`overhead ${ms(total - base).trim()}, ratio ${(total / base).toFixed(2)}`);
} finally {
  await server.stop();
  await machine.remove();
}
