// The cluster's processes outlive the command that starts them: each is detached, writes to a log file, and is
// known again by a file with its id, its start time and the hash of its command line.
import { spawn } from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { until } from '../kit/until.ts';
import { clusterDir, logDir, shortHash } from './layout.ts';

const pidDir = join(clusterDir, 'pids');

interface Record {
  pid: number;
  /** Field 22 of /proc/PID/stat: a pid may be reused, but not with the same start time. */
  started: string;
  command: string;
}

const startTime = (pid: number): string | undefined => {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[0] === 'Z' ? undefined : fields[19];
  } catch {
    return undefined;
  }
};

const recordOf = (name: string): Record | undefined => {
  try {
    return JSON.parse(readFileSync(join(pidDir, name), 'utf8')) as Record;
  } catch {
    return undefined;
  }
};

/** The pid of the named process if it runs and is the one that we started. */
export function runningPid(name: string): number | undefined {
  const record = recordOf(name);
  return record && startTime(record.pid) === record.started ? record.pid : undefined;
}

/** The names of all processes that were ever started and not stopped. */
export const recordedProcesses = (): string[] => (existsSync(pidDir) ? readdirSync(pidDir).sort() : []);

export interface Command {
  name: string;
  program: string;
  args: string[];
  env?: NodeJS.ProcessEnv;
  /** The content of its configuration files: a change restarts it. */
  config?: string;
  /** Identifies it instead of a command line that names a checkout: another checkout must not restart it. */
  identity?: string;
}

/** Starts the process unless it already runs with the same command. Returns whether it was started. */
export async function startProcess(command: Command): Promise<boolean> {
  const words = command.identity === undefined ? [command.program, ...command.args] : [command.identity];
  const hash = shortHash(...words, command.config ?? '');
  if (runningPid(command.name) && recordOf(command.name)?.command === hash) return false;
  await stopProcess(command.name);
  mkdirSync(pidDir, { recursive: true });
  mkdirSync(logDir, { recursive: true });
  const log = openSync(join(logDir, `${command.name}.log`), 'a');
  const child = spawn(command.program, command.args, {
    cwd: clusterDir,
    detached: true,
    stdio: ['ignore', log, log],
    env: { ...process.env, ...command.env },
  });
  closeSync(log);
  await new Promise<void>((resolve, reject) => {
    child.once('spawn', resolve);
    child.once('error', reject);
  });
  child.unref();
  const record: Record = { pid: child.pid!, started: startTime(child.pid!) ?? '', command: hash };
  writeFileSync(join(pidDir, command.name), JSON.stringify(record));
  return true;
}

const signal = (pid: number, name: NodeJS.Signals): void => {
  try {
    process.kill(pid, name);
  } catch {
    // It has already ended.
  }
};

/** Stops the named process, with SIGKILL after ten seconds, and removes its record. */
export async function stopProcess(name: string): Promise<void> {
  const pid = runningPid(name);
  if (pid !== undefined) {
    signal(pid, 'SIGTERM');
    const gone = () => runningPid(name) === undefined;
    await until(gone, `${name} to end`, 10_000).catch(() => signal(pid, 'SIGKILL'));
    await until(gone, `${name} (${pid}) to end after SIGKILL`, 10_000);
  }
  rmSync(join(pidDir, name), { force: true });
}

/** The last lines of a process's log, for a message about why it does not start. */
export function logTail(name: string, lines = 5): string {
  try {
    return readFileSync(join(logDir, `${name}.log`), 'utf8')
      .trimEnd()
      .split('\n')
      .slice(-lines)
      .join('\n');
  } catch {
    return '(no log)';
  }
}
