import { type ChildProcess, spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { mkdir, readFile, rm, stat } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { agentPids } from '../kit/api.ts';
import { type Machine, makeMachine, type Ran, type Server } from '../kit/machine.ts';
import { until } from '../kit/until.ts';

/**
 * Faults that sessions survive. Everything is real: OpenSSH with config-ssh's ProxyCommand, the server with its embedded
 * satellite and database, and the agent as a separate process.
 */
let machine: Machine;
let server: Server;
let config: string;
let workspaceId: string;
const children = new Set<ChildProcess>();

beforeAll(async () => {
  machine = await makeMachine();
  await mkdir(machine.env.HOME!, { recursive: true });
  server = await machine.start();
  config = join(machine.folder, 'laptop/.ssh/config');
  const configured = await machine.cde('config-ssh', '--ssh-config', config);
  expect(configured).toMatchObject({ code: 0 });
  workspaceId = JSON.parse((await machine.cde('show', 'hello', '--json')).stdout).id;
});
// A failed attempt may have left the server dead or frozen, and the workspace stopped.
beforeEach(async () => {
  if (server.process.exitCode !== null || server.process.signalCode !== null) server = await machine.start();
  else process.kill(await serverProcess(), 'SIGCONT');
  await machine.cde('start', 'hello');
});
afterAll(async () => {
  for (const child of children) child.kill('SIGKILL');
  await machine?.remove();
});

interface Begun {
  child: ChildProcess;
  stdout(): string;
  stderr(): string;
  ended: Promise<Ran>;
}

/** Starts a program with the machine's environment. */
function begin(program: string, args: string[]): Begun {
  const child = spawn(program, args, {
    env: machine.env,
    cwd: machine.folder,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  children.add(child);
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (chunk: Buffer) => {
    stdout += chunk;
  });
  child.stderr.on('data', (chunk: Buffer) => {
    stderr += chunk;
  });
  return {
    child,
    stdout: () => stdout,
    stderr: () => stderr,
    ended: new Promise((resolve) => {
      child.once('close', (code) => {
        children.delete(child);
        resolve({ code: code ?? -1, stdout, stderr });
      });
    }),
  };
}
const ssh = (command: string) => begin('ssh', ['-F', config, 'hello.cde', command]);

const numbers = (count: number) => Array.from({ length: count }, (_, at) => `${at + 1}\n`).join('');
const counting = (count: number, each = 0.05) => `for i in $(seq ${count}); do echo $i; sleep ${each}; done`;
const printed = (one: Begun, text: string) =>
  until(async () => one.stdout().includes(text) || one.child.exitCode !== null, Boolean);
const size = (path: string) =>
  stat(path).then(
    ({ size }) => size,
    () => 0,
  );

async function hash(path: string): Promise<string> {
  const sum = createHash('sha256');
  for await (const chunk of createReadStream(path)) sum.update(chunk as Buffer);
  return sum.digest('hex');
}

/** A file of random bytes. */
async function makeFile(path: string, megabytes: number): Promise<string> {
  const file = createWriteStream(path);
  for (let at = 0; at < megabytes; at++)
    await new Promise((resolve) => file.write(randomBytes(1024 * 1024), resolve));
  await new Promise<void>((resolve) => file.end(resolve));
  return hash(path);
}

async function serverProcess(): Promise<number> {
  const text = await readFile(`/proc/${server.process.pid}/task/${server.process.pid}/children`, 'utf8');
  return Number(text.trim().split(' ')[0]);
}

describe('a session survives', () => {
  test('kill -9 and a restart of the server: a running command continues, and nothing is lost or duplicated', async () => {
    const running = ssh(counting(200));
    await printed(running, '\n20\n');
    await server.kill();
    server = await machine.start();
    expect(await running.ended).toEqual({ code: 0, stdout: numbers(200), stderr: '' });
  });

  test('kill -9 and a restart of the server: scp of 200 MB from the workspace, and rsync to it', async () => {
    const there = join(machine.folder, 'there');
    const back = join(machine.folder, 'back');
    const sum = await makeFile(there, 200);
    const home = join(machine.folder, 'data/homes', workspaceId);
    // From an earlier attempt.
    for (const path of [join(home, 'big'), back]) await rm(path, { force: true });
    const up = begin('rsync', [
      '-e',
      `ssh -F ${config}`,
      '--inplace',
      '--whole-file',
      // Slow enough not to end between two checks of the size.
      '--bwlimit=40m',
      there,
      'hello.cde:big',
    ]);
    await until(
      () => size(join(home, 'big')),
      (bytes) => bytes > 30e6,
    );
    expect(await size(join(home, 'big'))).toBeLessThan(200 * 1024 * 1024);
    await server.kill();
    server = await machine.start();
    expect(await up.ended).toEqual({ code: 0, stdout: '', stderr: '' });
    expect(await hash(join(home, 'big'))).toBe(sum);

    const down = begin('scp', ['-l', '320000', '-F', config, 'hello.cde:big', back]);
    await until(
      () => size(back),
      (bytes) => bytes > 30e6,
    );
    await server.kill();
    expect(down.child.exitCode).toBeNull();
    server = await machine.start();
    expect(await down.ended).toEqual({ code: 0, stdout: '', stderr: '' });
    expect(await hash(back)).toBe(sum);
  });

  test('a satellite that is frozen for 20 s', async () => {
    const running = ssh(counting(600));
    await printed(running, '\n20\n');
    const pid = await serverProcess();
    process.kill(pid, 'SIGSTOP');
    await new Promise((resolve) => setTimeout(resolve, 20_000)); // The fault itself is a length of time.
    process.kill(pid, 'SIGCONT');
    expect(await running.ended).toEqual({ code: 0, stdout: numbers(600), stderr: '' });
  });

  test('kill -9 and a restart of the server: a port-forward keeps its connection, and informs the user', async () => {
    const forward = machine.begin(['port-forward', 'hello', '0:7001']);
    const serving = ssh(
      `node -e "require('net').createServer(s=>s.pipe(s)).listen(7001,'127.0.0.1',()=>console.log('up'))"`,
    );
    await printed(serving, 'up');
    await forward.says(/:\d+ → /);
    const port = Number(/:(\d+) → /.exec(forward.output())![1]);
    const socket = connect(port, '127.0.0.1');
    let echoed = '';
    socket.on('data', (chunk) => {
      echoed += chunk;
    });
    socket.write('before ');
    await until(
      async () => echoed,
      (text) => text === 'before ',
    );
    await server.kill();
    socket.write('meanwhile ');
    server = await machine.start();
    await forward.says('Reconnected after');
    socket.write('after');
    await until(
      async () => echoed,
      (text) => text === 'before meanwhile after',
    );
    expect(forward.output()).toContain('The connection was lost');
    socket.destroy();
    forward.process.kill('SIGINT');
    await forward.ended;
    serving.child.kill();
    await serving.ended;
  });
});

describe('a session ends with the reason', () => {
  test("when the agent's process is killed", async () => {
    const running = ssh(counting(10_000));
    await printed(running, '\n5\n');
    const [agent] = await agentPids(workspaceId);
    process.kill(agent!, 'SIGKILL');
    const ended = await running.ended;
    expect(ended.code).toBe(255);
    expect(ended.stderr).toContain('[agent-restarted]');
  });

  test('when the workspace is stopped', async () => {
    const running = ssh(counting(10_000));
    await printed(running, '\n5\n');
    expect((await machine.cde('stop', 'hello')).code).toBe(0);
    const ended = await running.ended;
    expect(ended.code).toBe(255);
    expect(ended.stderr).toMatch(/hello was stopped by \w+\. \[workspace-not-running\]/);
  });
});
