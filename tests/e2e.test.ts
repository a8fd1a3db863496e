import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Machine, makeMachine, type Server } from './kit/machine.ts';
import { until } from './kit/until.ts';

/** What a new user does, with real processes: server, PostgreSQL, agent, CLI, OpenSSH. */
const has = (program: string) => {
  try {
    execFileSync('sh', ['-c', `command -v ${program}`], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
};
const hasSsh = has('ssh');

let machine: Machine;
let server: Server;
beforeAll(async () => {
  machine = await makeMachine();
  await mkdir(machine.env.HOME!, { recursive: true });
  server = await machine.start();
});
afterAll(async () => {
  await machine?.remove();
});

const json = async (...args: string[]) => {
  const ran = await machine.cde(...args, '--json');
  if (ran.code !== 0) throw new Error(`cde ${args.join(' ')}: ${ran.stderr}`);
  return JSON.parse(ran.stdout);
};
const status = async (name: string) => (await json('show', name)).status as string;
/** A command in the workspace, through the machine's OpenSSH client. */
const ssh = (name: string, command: string, input?: string | Buffer) =>
  machine.run(
    process.execPath,
    [new URL('../cli/cde.mjs', import.meta.url).pathname, 'ssh', name, '--', command],
    input,
  );

test('the first start prints the address, a one-time link and three commands, and signs the CLI in', async () => {
  expect(server.output()).toContain(`cde is at   ${server.url}`);
  expect(server.output()).toMatch(/sign in at\s+http:\S+\/sign-in#code=cde_link_/);
  for (const command of ['npx cde ssh hello', 'npx cde create web --template local', 'npx cde list'])
    expect(server.output()).toContain(command);
  expect((await json('whoami')).role ?? (await json('whoami')).user?.role).toBe('owner');
  expect(await status('hello')).toBe('running');
});

describe.skipIf(!hasSsh)('with an OpenSSH client', () => {
  test('a shell command runs in the workspace, with its exit code', async () => {
    const ran = await ssh('hello', 'cd ~ && pwd && exit 7');
    expect(ran).toMatchObject({ code: 7 });
    expect(ran.stdout).toMatch(/^\/\S+\n$/);
  });

  test('files in the home survive stop and start, update, and kill -9 of the server', async () => {
    await ssh('hello', 'echo kept > ~/notes.txt');
    expect((await machine.cde('stop', 'hello')).code).toBe(0);
    expect(await status('hello')).toBe('stopped');
    expect((await machine.cde('start', 'hello')).code).toBe(0);
    expect((await ssh('hello', 'cat notes.txt')).stdout).toBe('kept\n');

    expect((await machine.cde('update', 'hello')).code).toBe(0);
    expect((await ssh('hello', 'cat notes.txt')).stdout).toBe('kept\n');

    // The agent survives its server: a process in the workspace keeps running and is found again.
    await ssh('hello', 'nohup sleep 1000 > /dev/null 2>&1 & echo $! > ~/pid');
    await server.kill();
    server = await machine.start();
    expect(server.output()).not.toContain('Creating the workspace');
    expect((await ssh('hello', 'cat notes.txt && kill -0 $(cat ~/pid) && echo alive')).stdout).toBe(
      'kept\nalive\n',
    );
  });

  test('Ctrl-C stops the server cleanly; the next start finds everything', async () => {
    expect(await server.stop()).toBe(0);
    server = await machine.start();
    expect((await ssh('hello', 'cat notes.txt')).stdout).toBe('kept\n');
  });

  test.runIf(process.platform === 'linux')(
    'an agent killed during a session is reported in one sentence',
    async () => {
      const ran = await ssh('hello', 'kill -9 $PPID; exec sleep 30');
      expect(ran.code).toBe(255);
      expect(ran.stderr).toContain('[agent-restarted]');
      expect(ran.stderr).not.toMatch(/\n {4}at |Unhandled/);
      expect((await ssh('hello', 'echo back')).stdout).toBe('back\n');
    },
  );

  test('plain ssh, rsync and scp work after config-ssh, which preserves the rest of the file', async () => {
    const config = join(machine.env.HOME!, '.ssh/config');
    await mkdir(join(machine.env.HOME!, '.ssh'), { recursive: true, mode: 0o700 });
    await writeFile(config, 'Host mine\n  HostName 192.0.2.1', { mode: 0o600 });
    expect((await machine.cde('config-ssh')).code).toBe(0);
    const once = await readFile(config, 'utf8');
    expect(once).toMatch(/^# .*cde[\s\S]*Include[\s\S]*Host mine\n {2}HostName 192\.0\.2\.1/);
    await machine.cde('config-ssh');
    expect(await readFile(config, 'utf8')).toBe(once);
    // OpenSSH uses the account's home and not $HOME, so the test passes the file.
    const plain = await machine.run('ssh', ['-F', config, 'Hello.CDE', 'hostname; cat'], 'through stdin\n');
    expect(plain).toMatchObject({ code: 0, stdout: expect.stringContaining('through stdin') });
    const bytes = randomBytes(3_000_000);
    await writeFile(join(machine.folder, 'big'), bytes);
    expect(
      (await machine.run('scp', ['-F', config, join(machine.folder, 'big'), 'hello.cde:big'])).code,
    ).toBe(0);
    expect(
      (await machine.run('scp', ['-F', config, 'hello.cde:big', join(machine.folder, 'back')])).code,
    ).toBe(0);
    expect((await readFile(join(machine.folder, 'back'))).equals(bytes)).toBe(true);
  });

  test('a port of the workspace is reached through port-forward', async () => {
    const script =
      "require('http').createServer((q,s)=>s.end('from inside')).listen(0,'127.0.0.1',function(){console.log(this.address().port)})";
    const node = process.execPath;
    await ssh('hello', `nohup ${node} -e ${JSON.stringify(script)} > ~/port 2>&1 &`);
    const port = (
      await until(
        async () => (await ssh('hello', 'cat ~/port')).stdout,
        (text) => /^\d+\n/.test(text),
      )
    ).trim();
    const { spawn } = await import('node:child_process');
    const forward = spawn(
      process.execPath,
      [new URL('../cli/cde.mjs', import.meta.url).pathname, 'port-forward', 'hello', `0:${port}`],
      { env: machine.env, stdio: ['ignore', 'pipe', 'pipe'] },
    );
    try {
      let text = '';
      forward.stdout.on('data', (chunk) => (text += chunk));
      forward.stderr.on('data', (chunk) => (text += chunk));
      const local = await until(
        async () => /127\.0\.0\.1:(\d+)/.exec(text)?.[1],
        (value) => value !== undefined,
      );
      expect(await (await fetch(`http://127.0.0.1:${local}/`)).text()).toBe('from inside');
    } finally {
      forward.kill();
    }
  });
});

test('create with parameters, list, and delete; the home is kept for its grace period', async () => {
  expect((await machine.cde('create', 'web', '--template', 'local')).code).toBe(0);
  expect((await json('list')).items?.length ?? (await json('list')).length).toBe(2);
  const refused = await machine.cde('create', 'web', '--template', 'local');
  expect(refused.code).toBe(5);
  expect(refused.stderr).toMatch(/workspace-name-taken/);
  expect((await machine.cde('delete', 'web', '--yes')).code).toBe(0);
  expect((await machine.cde('show', 'web')).code).toBe(3);
  const { readdir } = await import('node:fs/promises');
  expect(await readdir(join(machine.env.CDE_DATA_DIR!, 'homes/.set-aside'))).toHaveLength(1);
});

test('a second server on the same address explains the conflict', async () => {
  const ran = await machine.run(process.execPath, [new URL('../server/main.ts', import.meta.url).pathname]);
  expect(ran.code).toBe(1);
  expect(ran.stderr).toMatch(/Port \d+ on 127\.0\.0\.1 is in use/);
});

test('an invalid database URL is reported with what to do', async () => {
  const ran = await machine.run(process.execPath, [
    new URL('../server/main.ts', import.meta.url).pathname,
    '--database-url',
    'http://nowhere',
    '--listen',
    '127.0.0.1:0',
  ]);
  expect(ran).toMatchObject({ code: 2, stderr: expect.stringMatching(/postgres:\/\//) });
});
