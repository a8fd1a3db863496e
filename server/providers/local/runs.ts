import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import {
  closeSync,
  existsSync,
  fstatSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { mkdir, rename, rm, unlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { argvOf, childrenOf, isAlive, machineId, type ProcessId, signal, treeOf } from './processes.ts';

const script = join(import.meta.dirname, 'supervisor.sh');
const logBytes = 1 << 20;

/** What is known of one supervisor and its agent; from its record, or from the provider's state. */
export interface RunRecord extends ProcessId {
  machine: string;
  buildId: string;
  isolation: string;
  /** The first process of the launch command: without isolation the agent itself. */
  main?: number;
  mainStart?: string;
}

export interface Exit {
  /** As a shell has it: 128 + the signal's number for one that was killed. */
  code: number;
  outOfMemory: boolean;
  livedMs: number;
}

export type RunState =
  | { kind: 'none' }
  | { kind: 'alive'; compute: RunRecord }
  | { kind: 'ended'; compute: RunRecord; exit: Exit | null };

/** Exit codes of supervisor.sh. */
export const supervisorCodes = { limitsRefused: 73, cannotWrite: 74, another: 75, notWanted: 76 } as const;

const isStep = (argv: string[]) => /(^|\/)(setpriv|unshare)$/.test(argv[0]!);

const isCompute = (value: unknown): value is RunRecord => {
  const it = value as Partial<RunRecord> | null;
  return (
    Number.isInteger(it?.pid) &&
    typeof it?.startTime === 'string' &&
    typeof it.buildId === 'string' &&
    typeof it.machine === 'string'
  );
};

/** A file with this text, open for reading, that has no name any more: nobody else opens it, and nothing is left of it. */
function openUnnamed(path: string, text: string): number {
  try {
    writeFileSync(path, text, { mode: 0o600, flag: 'wx' });
    return openSync(path, 'r');
  } finally {
    rmSync(path, { force: true });
  }
}

/**
 * The run directories: DIRECTORY/ID holds what supervisor.sh documents, besides agent.log (and
 * agent.log.1) and launch.log. They are the truth about what runs; the provider's state only helps
 * where one was lost.
 */
export function makeRuns({ directory }: { directory: string }) {
  const machine = machineId();
  const folder = (workspaceId: string) => join(directory, workspaceId);
  const marker = (workspaceId: string) => `CDE_LOCAL_WORKSPACE=${workspaceId}`;
  const lines = (workspaceId: string, name: string): unknown[] | null => {
    try {
      const text = readFileSync(join(folder(workspaceId), name), 'utf8');
      return text
        .split('\n')
        .slice(0, -1)
        .map((line) => JSON.parse(line));
    } catch {
      // Absent, or half written by a supervisor that is writing it now or died over it.
      return null;
    }
  };

  function recorded(workspaceId: string): RunRecord | null {
    const record = Object.assign({}, ...(lines(workspaceId, 'record') ?? []));
    return isCompute(record) ? record : null;
  }

  function exitOf(workspaceId: string, compute: RunRecord): Exit | null {
    const exit = lines(workspaceId, 'exit')?.[0] as
      | (ProcessId & { code: number; outOfMemory: number })
      | undefined;
    if (exit?.pid !== compute.pid || exit.startTime !== compute.startTime) return null;
    const written = (name: string) =>
      statSync(join(folder(workspaceId), name), { throwIfNoEntry: false })?.mtimeMs ?? 0;
    const died = written('exit');
    const born = written('record');
    return { code: exit.code, outOfMemory: exit.outOfMemory > 0, livedMs: Math.max(0, died - born) };
  }

  async function mainAlive({ main, mainStart }: RunRecord): Promise<boolean> {
    return main !== undefined && !!mainStart && (await isAlive({ pid: main, startTime: mainStart }));
  }

  /** `remembered`: the provider's state. */
  async function inspect(workspaceId: string, remembered: unknown): Promise<RunState> {
    const compute = recorded(workspaceId) ?? (isCompute(remembered) ? remembered : null);
    if (!compute) return { kind: 'none' };
    const alive =
      !exitOf(workspaceId, compute) &&
      compute.machine === machine &&
      ((await isAlive(compute)) || (await mainAlive(compute)));
    if (alive) return { kind: 'alive', compute };
    // A next life may have begun between the looks, and must not be taken for dead.
    const now = recorded(workspaceId);
    if (now && now.pid !== compute.pid) return inspect(workspaceId, remembered);
    // Its last words may be younger than the first look for them.
    return { kind: 'ended', compute, exit: exitOf(workspaceId, compute) };
  }

  /** The agent and, where there is a pid namespace, its init; host pids. Null: not there (yet). */
  async function agentOf(compute: RunRecord): Promise<{ init: number | null; agent: number } | null> {
    if (!(await mainAlive(compute))) return null;
    let main = compute.main!;
    if (compute.isolation === 'none') return { init: null, agent: main };
    // pasta stays between the supervisor and what it connects.
    if (/(^|\/)pasta(\.avx2)?$/.test(argvOf(main)?.[0] ?? '')) main = (await childrenOf(main))[0] ?? 0;
    const [init] = await childrenOf(main);
    const [agent] = init ? await childrenOf(init) : [];
    return init && agent ? { init, agent } : null;
  }

  return {
    folder,
    marker,
    inspect: inspect,
    agentOf,
    machine,

    /** The workspaces that have a run directory. */
    all: (): string[] =>
      existsSync(directory) ? readdirSync(directory).filter((name) => !name.startsWith('trial-')) : [],

    async prepare(workspaceId: string): Promise<void> {
      await mkdir(folder(workspaceId), { recursive: true, mode: 0o700 });
    },

    /** Replaces a file of the run directory in one step. */
    async write(workspaceId: string, name: string, text: string, mode = 0o600): Promise<string> {
      const path = join(folder(workspaceId), name);
      const staged = `${path}.${randomUUID()}`;
      try {
        await writeFile(staged, text, { mode });
        await rename(staged, path);
      } finally {
        await rm(staged, { force: true });
      }
      return path;
    },

    read(workspaceId: string, name: string): string | null {
      try {
        return readFileSync(join(folder(workspaceId), name), 'utf8');
      } catch {
        return null;
      }
    },

    /** Names the newest run, for `launch`; empty if there is none. Read before anything that decides about a start. */
    newest(workspaceId: string): string {
      // After a power failure a file can hold NULs, which no argument may contain, and which the shell drops as well.
      const [line = ''] = (this.read(workspaceId, 'record') ?? '').split('\n');
      return line.replaceAll('\0', '');
    },

    /** No supervisor that has not got as far as its record may start an agent any more. */
    async cancelPending(workspaceId: string): Promise<void> {
      await unlink(join(folder(workspaceId), 'wanted')).catch((error) => {
        if (error.code !== 'ENOENT') throw error;
      });
    },

    /**
     * Starts a supervisor that outlives this process, unless another one has started an agent since `previous` was the
     * newest run. The agent finds the token on stdin: what is in an
     * environment all processes of the workspace can read. `ended`: its exit code, when this process sees it.
     */
    launch(what: {
      workspaceId: string;
      buildId: string;
      isolation: string;
      token: string;
      previous: string;
      command: string[];
      env: Record<string, string>;
    }) {
      const { workspaceId, buildId, isolation, command, env } = what;
      const said = openSync(join(folder(workspaceId), 'launch.log'), 'w', 0o600);
      let token: number | null = null;
      try {
        token = openUnnamed(join(folder(workspaceId), `token.${randomUUID()}`), what.token);
        const child = spawn(
          '/bin/sh',
          [
            ...[script, 'launch', folder(workspaceId), buildId, machine, isolation],
            ...[String(logBytes), what.previous, ...command],
          ],
          { cwd: folder(workspaceId), env, detached: true, stdio: [token, said, said] },
        );
        child.unref();
        const ended = new Promise<number>((resolve) => {
          child.once('error', () => resolve(supervisorCodes.cannotWrite));
          child.once('exit', (code) => resolve(code ?? 1));
        });
        return { pid: child.pid ?? 0, ended };
      } finally {
        closeSync(said);
        if (token !== null) closeSync(token);
      }
    },

    /** Forgets what ended, and ends its `strays` (without isolation only). False: somebody holds the lock, so something is there or just starting. */
    async clear(workspaceId: string, strays: boolean): Promise<boolean> {
      if (!existsSync(folder(workspaceId))) return true;
      const child = spawn(
        '/bin/sh',
        [script, 'clear', folder(workspaceId), strays ? marker(workspaceId) : ''],
        { stdio: 'ignore' },
      );
      const code = await new Promise<number>((resolve, reject) => {
        child.once('error', reject);
        child.once('exit', (status) => resolve(status ?? 1));
      });
      if (code === supervisorCodes.another) return false;
      if (code === 0 || code === supervisorCodes.notWanted) return true;
      throw Object.assign(new Error(`the run directory ${folder(workspaceId)} cannot be cleared`), {
        code: 'EACCES',
      });
    },

    async discard(workspaceId: string): Promise<void> {
      await rm(folder(workspaceId), { recursive: true, force: true });
    },

    /** Whether the agent's own program runs, and not one of the steps before it. */
    async isStarted(compute: RunRecord): Promise<boolean> {
      const there = await agentOf(compute);
      if (!there || process.platform !== 'linux') return there !== null;
      const argv = argvOf(there.agent);
      const init = there.init === null ? null : argvOf(there.init);
      if (!argv || argv[1] === script || isStep(argv)) return false;
      // Just forked it still looks like its parent; and the script of the unshare level has other children.
      return (
        !init ||
        !(argv.join('\0') === init.join('\0') || isStep(init) || /\/(enter|network)\.sh$/.test(init[1] ?? ''))
      );
    },

    /** Asks the agent to end; its pid. Null: it had not begun yet, and all of it was ended. */
    async terminate(compute: RunRecord): Promise<number | null> {
      const there = await agentOf(compute);
      if (there) signal(there.agent, 'SIGTERM');
      else await this.kill(compute);
      return there?.agent ?? null;
    },

    /** Ends the whole tree, at once. */
    async kill(compute: RunRecord): Promise<void> {
      const there = await agentOf(compute);
      // The death of a pid namespace's init takes all that is in it; the supervisor then tells of it.
      if (there?.init) signal(there.init, 'SIGKILL');
      else {
        const roots = [
          (await isAlive(compute)) ? compute.pid : 0,
          (await mainAlive(compute)) ? compute.main! : 0,
        ];
        for (const root of roots.filter(Boolean))
          for (const pid of await treeOf(root)) signal(pid, 'SIGKILL');
      }
    },

    /** The last lines that the agent wrote, at most 4 KiB. */
    tail(workspaceId: string): string {
      try {
        const file = openSync(join(folder(workspaceId), 'agent.log'), 'r');
        try {
          const { size } = fstatSync(file);
          const buffer = Buffer.alloc(Math.min(size, 4096));
          readSync(file, buffer, 0, buffer.length, size - buffer.length);
          return buffer.toString('utf8').trim().split('\n').slice(-20).join('\n');
        } finally {
          closeSync(file);
        }
      } catch {
        return '';
      }
    },
  };
}
export type Runs = ReturnType<typeof makeRuns>;
