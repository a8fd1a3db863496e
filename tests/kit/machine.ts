import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { compileCache } from './compile-cache.ts';
import { freePort } from './free-port.ts';
import { patienceMs } from './until.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));
const node = join(root, 'node_modules/.bin/node');
export const cde = join(root, 'cli/cde.mjs');

export interface Ran {
  code: number;
  stdout: string;
  stderr: string;
}

/** A simulated machine: data, configuration and home in a folder that is removed with it. */
export interface Machine {
  folder: string;
  env: NodeJS.ProcessEnv;
  /** Runs `cde` until it ends. */
  cde(...args: string[]): Promise<Ran>;
  /** Runs any program with the machine's environment; `input` goes to its stdin. */
  run(program: string, args: string[], input?: string | Buffer): Promise<Ran>;
  /** Starts `cde` in the background; killed with the machine. */
  begin(args: string[], env?: Record<string, string>): Running;
  /** Starts `cde server start` and waits until it has printed its address. */
  start(env?: Record<string, string>): Promise<Server>;
  /** Ends everything that was started here, including agents and the database, and removes the folder. */
  remove(): Promise<void>;
}

/** A `cde` that runs in the background. */
export interface Running {
  process: ChildProcess;
  /** Everything that it has printed to stdout and stderr. */
  output(): string;
  /** Waits until it has printed the text; rejects if it ends without doing so. */
  says(text: string | RegExp): Promise<void>;
  ended: Promise<Ran>;
}

export interface Server {
  process: ChildProcess;
  url: string;
  /** Everything that it has printed. */
  output(): string;
  /** Ctrl-C; resolves with the exit code. */
  stop(): Promise<number | null>;
  /** kill -9 of the server process itself (its parent, the CLI, then ends too). */
  kill(): Promise<void>;
}

/**
 * For a machine whose workspaces reach what the test itself listens on at 127.0.0.1, as if it ran in the workspace: without
 * isolation they share the network, and the test's user is theirs.
 */
export const inTestNetwork = { CDE_ISOLATION: 'none' };

export async function makeMachine(extra: Record<string, string> = {}): Promise<Machine> {
  const folder = await mkdtemp(join(tmpdir(), 'cde-e2e-'));
  // If we are root, the embedded PostgreSQL runs as another user, who must be able to enter.
  await chmod(folder, 0o711);
  const port = await freePort();
  const env: NodeJS.ProcessEnv = {
    PATH: `${join(root, 'node_modules/.bin')}:${process.env.PATH}`,
    LANG: 'C.UTF-8',
    TERM: 'dumb',
    HOME: join(folder, 'laptop'),
    CDE_DATA_DIR: join(folder, 'data'),
    CDE_CONFIG_DIR: join(folder, 'config'),
    CDE_LISTEN: `127.0.0.1:${port}`,
    CDE_LOG_LEVEL: 'warn',
    // An engine of this machine is none of the tests' business.
    CDE_DOCKER: 'off',
    ...compileCache,
    ...extra,
  };
  const running = new Set<ChildProcess>();

  const run = (program: string, args: string[], input?: string | Buffer): Promise<Ran> =>
    new Promise((resolve, reject) => {
      const child = execFile(
        program,
        args,
        { env, cwd: folder, maxBuffer: 256 * 1024 * 1024, timeout: 2 * patienceMs },
        (error, stdout, stderr) => {
          const code = error === null ? 0 : typeof error.code === 'number' ? error.code : -1;
          if (error !== null && code === -1)
            reject(new Error(`${program} ${args.join(' ')}: ${error.message}\n${stderr}`));
          else resolve({ code, stdout, stderr });
        },
      );
      child.stdin?.on('error', () => {});
      child.stdin?.end(input);
    });

  function begin(args: string[], more: Record<string, string> = {}): Running {
    const child = spawn(node, [cde, ...args], {
      env: { ...env, ...more },
      cwd: folder,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    running.add(child);
    const texts = { stdout: '', stderr: '' };
    let all = '';
    const waiting = new Set<() => void>();
    for (const name of ['stdout', 'stderr'] as const)
      child[name]!.on('data', (chunk: Buffer) => {
        texts[name] += chunk.toString();
        all += chunk.toString();
        for (const look of waiting) look();
      });
    const ended = once(child, 'close').then(([code]) => {
      running.delete(child);
      return { code: (code as number | null) ?? -1, ...texts };
    });
    return {
      process: child,
      output: () => all,
      ended,
      async says(text) {
        const said = () => (typeof text === 'string' ? all.includes(text) : text.test(all));
        let look = () => {};
        const saying = new Promise<void>((resolve) => {
          look = () => said() && resolve();
          waiting.add(look);
          look();
        });
        const over = await Promise.race([saying, ended]).finally(() => waiting.delete(look));
        if (over && !said()) throw new Error(`ended with ${over.code} without ${text}:\n${all}`);
      },
    };
  }

  return {
    folder,
    env,
    run,
    begin,
    cde: (...args) => run(node, [cde, ...args]),
    async start(more = {}) {
      const child = spawn(node, [cde, 'server', 'start'], {
        env: { ...env, ...more },
        cwd: folder,
        stdio: ['ignore', 'pipe', 'pipe'],
      });
      running.add(child);
      let text = '';
      const ended = once(child, 'exit').then(([code]) => {
        running.delete(child);
        return code as number | null;
      });
      const url = `http://${env.CDE_LISTEN}`;
      await new Promise<void>((resolve, reject) => {
        const onText = (chunk: Buffer) => {
          text += chunk.toString();
          if (text.includes('Ctrl-C stops the server')) resolve();
        };
        child.stdout.on('data', onText);
        child.stderr.on('data', onText);
        void ended.then((code) => reject(new Error(`the server ended with ${code}:\n${text}`)));
      });
      return {
        process: child,
        url,
        output: () => text,
        async stop() {
          child.kill('SIGINT');
          return ended;
        },
        async kill() {
          for (const pid of await childrenOf(child.pid!)) process.kill(pid, 'SIGKILL');
          await ended;
        },
      };
    },
    async remove() {
      for (const child of running) {
        // A process that was killed may have left a child that holds its outputs open.
        if (child.exitCode !== null || child.signalCode !== null) continue;
        child.kill('SIGKILL');
        await once(child, 'exit');
      }
      await endLeftovers(folder);
      await rm(folder, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}

async function childrenOf(pid: number): Promise<number[]> {
  const text = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8').catch(() => '');
  return text.split(' ').filter(Boolean).map(Number);
}

/** Ends processes whose command line contains the folder: agents that survive their server, and PostgreSQL. */
export async function endLeftovers(folder: string): Promise<void> {
  const deadline = Date.now() + 15_000;
  for (
    let signal: NodeJS.Signals = 'SIGINT';
    ;
    signal = Date.now() > deadline - 12_000 ? 'SIGKILL' : 'SIGTERM'
  ) {
    const signals: [pid: number, NodeJS.Signals][] = [];
    for (const name of await readdir('/proc').catch(() => [] as string[])) {
      if (!/^\d+$/.test(name) || Number(name) === process.pid) continue;
      const line = await readFile(`/proc/${name}/cmdline`, 'utf8').catch(() => '');
      // Ends only after its agent, unless it is killed, which takes the agent along.
      const isSupervisor = line.includes('/supervisor.sh\0');
      // The background process of cde can be recognized only by its environment.
      const isBackground = line.endsWith('\0background\0run\0');
      const environment = isBackground ? await readFile(`/proc/${name}/environ`, 'utf8').catch(() => '') : '';
      if (line.includes(folder) || environment.includes(folder))
        signals.push([Number(name), isSupervisor ? 'SIGKILL' : signal]);
    }
    if (signals.length === 0 || Date.now() > deadline) return;
    for (const [pid, signal] of signals)
      try {
        process.kill(pid, signal);
      } catch {
        // It has ended in the meantime.
      }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
