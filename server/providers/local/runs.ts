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

/** What is known about a supervisor and its agent, from its record or the provider's state. */
export interface RunRecord extends ProcessId {
  machine: string;
  buildId: string;
  isolation: string;
  /** The first process of the launch command. Without isolation, the agent itself. */
  main?: number;
  mainStart?: string;
}

export interface Exit {
  /** As in a shell: 128 + the signal's number if it was killed. */
  code: number;
  outOfMemory: boolean;
  livedMs: number;
}

type RunState =
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

/** Opens an unlinked file with this text for reading. No other process can open it, and it leaves nothing behind. */
function openUnnamed(path: string, text: string): number {
  try {
    writeFileSync(path, text, { mode: 0o600, flag: 'wx' });
    return openSync(path, 'r');
  } finally {
    rmSync(path, { force: true });
  }
}

/**
 * The run directories: DIRECTORY/ID holds what supervisor.sh documents, besides agent.log (and agent.log.1) and
 * launch.log. They are authoritative for what runs; the provider's state only helps if one was lost.
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
      // Missing, or half written by a supervisor that is still writing or has died.
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
    // A new run may have started in between, and must not be taken for dead.
    const now = recorded(workspaceId);
    if (now && now.pid !== compute.pid) return inspect(workspaceId, remembered);
    // It may have written its exit after the first read.
    return { kind: 'ended', compute, exit: exitOf(workspaceId, compute) };
  }

  /** The host pids of the agent and of its pid namespace's init, if any. Null while they do not exist. */
  async function agentOf(compute: RunRecord): Promise<{ init: number | null; agent: number } | null> {
    if (!(await mainAlive(compute))) return null;
    let main = compute.main!;
    if (compute.isolation === 'none') return { init: null, agent: main };
    // pasta stays between the supervisor and the rest.
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

    /** Replaces a file of the run directory atomically. */
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

    /**
     * The id of the newest run, for `launch`; empty if there is none. Read it before any check that decides about a
     * start.
     */
    newest(workspaceId: string): string {
      // After a power failure a file can contain NULs, which are not allowed in arguments and which the shell drops as
      // well.
      const [line = ''] = (this.read(workspaceId, 'record') ?? '').split('\n');
      return line.replaceAll('\0', '');
    },

    /** From now on, a supervisor that has not written its record yet cannot start an agent. */
    async cancelPending(workspaceId: string): Promise<void> {
      await unlink(join(folder(workspaceId), 'wanted')).catch((error) => {
        if (error.code !== 'ENOENT') throw error;
      });
    },

    /**
     * Starts a supervisor that outlives this process, unless another one has started an agent since `previous` was the
     * newest run. The agent reads the token from stdin, because all processes of the workspace can read its
     * environment. `ended`: the exit code, if this process sees it.
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

    /**
     * Cleans up after a run that has ended and, without isolation, kills its `strays`. False if the lock is held,
     * because something runs or is starting.
     */
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

    /** Whether the agent's own program runs, as opposed to one of the steps before it. */
    async isStarted(compute: RunRecord): Promise<boolean> {
      const there = await agentOf(compute);
      if (!there || process.platform !== 'linux') return there !== null;
      const argv = argvOf(there.agent);
      const init = there.init === null ? null : argvOf(there.init);
      if (!argv || argv[1] === script || isStep(argv)) return false;
      // Right after the fork it still looks like its parent, and the unshare level's script has other children.
      return (
        !init ||
        !(argv.join('\0') === init.join('\0') || isStep(init) || /\/(enter|network)\.sh$/.test(init[1] ?? ''))
      );
    },

    /** Asks the agent to exit and returns its pid. Null if it had not started yet: then the whole tree was killed. */
    async terminate(compute: RunRecord): Promise<number | null> {
      const there = await agentOf(compute);
      if (there) signal(there.agent, 'SIGTERM');
      else await this.kill(compute);
      return there?.agent ?? null;
    },

    /** Kills the whole tree. */
    async kill(compute: RunRecord): Promise<void> {
      const there = await agentOf(compute);
      // Killing a pid namespace's init kills everything in it; the supervisor then records the exit.
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

    /** The last lines of the agent's log, at most 4 KiB. */
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
