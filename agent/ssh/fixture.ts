export { until } from '../../tests/kit/until.ts';

/** What the SSH tests share: the real server on a Unix socket, and the real OpenSSH client at its other end. */
import { type ChildProcessWithoutNullStreams, execFileSync, spawn } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Activity, makeActivity } from '../activity/activity.ts';
import { makeOpenTerminals, type OpenTerminals } from '../activity/open-terminals.ts';
import { readHostKey } from '../host-key.ts';
import { makeSessions, type Sessions } from '../sessions.ts';
import type { Workspace } from './environment.ts';
import { makePipePool } from './jobs/pipes.ts';
import { makeSshServer, type SshServer } from './server.ts';

export interface Result {
  code: number | null;
  stdout: Buffer;
  stderr: string;
}

export interface Fixture {
  /** A folder for the test's own files. */
  folder: string;
  /** The home inside the workspace. */
  home: string;
  /** An ssh_config whose host `ws` is the server. */
  config: string;
  /** The server's socket, for clients other than OpenSSH. */
  socket: string;
  server: SshServer;
  sessions: Sessions;
  activity: Activity;
  /** Moves the time of `activity` forward. */
  pass(ms: number): void;
  openTerminals: OpenTerminals;
  workspace: Workspace;
  /** Runs `ssh -F config …`. */
  ssh(args: string[], input?: Buffer | string | null, environment?: Record<string, string>): Promise<Result>;
  /** Starts `ssh -F config …`; killed at the end of the test file. */
  start(args: string[], environment?: Record<string, string>): ChildProcessWithoutNullStreams;
  /** Runs any program to its end. */
  run(
    file: string,
    args: string[],
    options?: { input?: Buffer | string | null; environment?: Record<string, string>; cwd?: string },
  ): Promise<Result>;
  close(): Promise<void>;
}

/** Joins the client's stdio to the server's socket, as `cde ssh --stdio` does over the tunnel. */
const proxy = `const socket = require('node:net').connect({ path: process.argv[2], allowHalfOpen: true });
process.stdin.pipe(socket);
socket.pipe(process.stdout);
socket.on('error', () => process.exit(1));
socket.on('end', () => process.exit(0));
socket.on('close', () => process.exit(0));
`;

export async function makeFixture(): Promise<Fixture> {
  const folder = await mkdtemp(join(tmpdir(), 'cde-ssh-test-'));
  const home = join(folder, 'home');
  const socket = join(folder, 'ssh.sock');
  const config = join(folder, 'ssh_config');
  await mkdir(home);
  await writeFile(join(folder, 'proxy.cjs'), proxy);
  const key = await readHostKey(join(folder, 'host_key'));
  await writeFile(join(folder, 'known_hosts'), `ws ${key.publicKey}\n`);
  await writeFile(
    config,
    [
      'Host ws',
      '  User dev',
      `  ProxyCommand ${process.execPath} ${join(folder, 'proxy.cjs')} ${socket}`,
      '  StrictHostKeyChecking yes',
      `  UserKnownHostsFile ${join(folder, 'known_hosts')}`,
      '  LogLevel ERROR',
      '',
    ].join('\n'),
  );
  const sessions = makeSessions();
  const workspace: Workspace = {
    workspaceId: '01980000-0000-7000-8000-000000000000',
    workspace: 'dev/hello',
    username: 'dev',
    home,
    env: { FROM_MANIFEST: 'yes' },
  };
  const pool = makePipePool();
  let passedMs = 0;
  const activity = makeActivity({ now: () => performance.now() + passedMs });
  const openTerminals = makeOpenTerminals();
  const ssh = makeSshServer({
    hostKey: key.privateKey,
    sessions,
    workspace: () => workspace,
    pool,
    activity,
    openTerminals,
  });
  const server = createServer({ allowHalfOpen: true }, (stream) => ssh.serve(stream, () => 'ada'));
  await new Promise<void>((resolve) => server.listen(socket, resolve));
  const children = new Set<ChildProcessWithoutNullStreams>();

  function track(child: ChildProcessWithoutNullStreams) {
    children.add(child);
    child.once('close', () => children.delete(child));
    child.stdin.on('error', () => {});
    return child;
  }
  // The developer's own agent and configuration have no part in the tests.
  const base = { ...process.env, SSH_AUTH_SOCK: '', HOME: folder, GIT_CONFIG_NOSYSTEM: '1' };

  const run: Fixture['run'] = (file, args, options = {}) =>
    new Promise((resolve, reject) => {
      const child = track(
        spawn(file, args, { env: { ...base, ...options.environment }, cwd: options.cwd ?? folder }),
      );
      const stdout: Buffer[] = [];
      let stderr = '';
      child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk));
      child.stderr.on('data', (chunk: Buffer) => {
        stderr += chunk;
      });
      child.once('error', reject);
      child.once('close', (code) => resolve({ code, stdout: Buffer.concat(stdout), stderr }));
      child.stdin.end(options.input ?? undefined);
    });

  return {
    folder,
    home,
    config,
    socket,
    server: ssh,
    sessions,
    activity,
    pass(ms) {
      passedMs += ms;
    },
    openTerminals,
    workspace,
    run,
    ssh: (args, input = null, environment = {}) =>
      run('ssh', ['-F', config, ...args], { input, environment }),
    start: (args, environment = {}) =>
      track(spawn('ssh', ['-F', config, ...args], { env: { ...base, ...environment }, cwd: folder })),
    async close() {
      const ended = [...children].map((child) => new Promise((resolve) => child.once('close', resolve)));
      for (const child of children) child.kill('SIGKILL');
      await Promise.all(ended);
      ssh.close();
      pool.close();
      await new Promise((resolve) => server.close(resolve));
      await rm(folder, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}

/** True where a program is on the PATH; a test that needs it is skipped otherwise, with its name. */
export function has(program: string): boolean {
  try {
    execFileSync('/bin/sh', ['-c', `command -v ${program}`], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

export function alive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
