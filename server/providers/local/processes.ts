import { execFile } from 'node:child_process';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { promisify } from 'node:util';

const run = promisify(execFile);
const linux = process.platform === 'linux';

/** Identifies a process. A pid alone is not enough, because the kernel reuses it. */
export interface ProcessId {
  pid: number;
  startTime: string;
}

function stat(pid: number): string[] | null {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The command's name is in parentheses and may itself contain parentheses and spaces.
    return text.slice(text.lastIndexOf(')') + 2).split(' ');
  } catch {
    return null;
  }
}

/**
 * When the process started: clock ticks since boot on Linux, a date elsewhere. Null if it has exited or is a zombie.
 */
export async function startTimeOf(pid: number): Promise<string | null> {
  if (linux) {
    const fields = stat(pid);
    return !fields || fields[0] === 'Z' || fields[0] === 'X' ? null : fields[19]!;
  }
  try {
    const { stdout } = await run('ps', ['-o', 'state=,lstart=', '-p', String(pid)], { env: { LC_ALL: 'C' } });
    const [state, ...date] = stdout.trim().split(/\s+/);
    return !state || state.startsWith('Z') ? null : date.join(' ');
  } catch {
    return null;
  }
}

const oneLine = (text: string) => text.trim().split(/\s+/).join(' ');

export async function isAlive(id: ProcessId): Promise<boolean> {
  return (await startTimeOf(id.pid)) === oneLine(id.startTime);
}

/** The parent of each process, by pid. */
async function parents(): Promise<Map<number, number>> {
  const all = new Map<number, number>();
  if (linux) {
    for (const name of readdirSync('/proc')) {
      const fields = /^\d+$/.test(name) ? stat(Number(name)) : null;
      if (fields && fields[0] !== 'Z' && fields[0] !== 'X') all.set(Number(name), Number(fields[1]));
    }
    return all;
  }
  const { stdout } = await run('ps', ['-axo', 'pid=,ppid=,state=']);
  for (const line of stdout.split('\n')) {
    const [pid, parent, state] = line.trim().split(/\s+/);
    if (pid && !state?.startsWith('Z')) all.set(Number(pid), Number(parent));
  }
  return all;
}

/** The children of a process, oldest first. */
export async function childrenOf(pid: number): Promise<number[]> {
  if (linux) {
    try {
      const text = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8');
      return text.split(' ').filter(Boolean).map(Number);
    } catch {
      // The kernel lacks CONFIG_PROC_CHILDREN, or the process has exited.
    }
  }
  const all = await parents();
  return [...all].filter(([, parent]) => parent === pid).map(([child]) => child);
}

/** The process and all its descendants, as far as their parents are still known. */
export async function treeOf(pid: number): Promise<number[]> {
  const all = await parents();
  const found = new Set<number>(all.has(pid) ? [pid] : []);
  for (let before = -1; before !== found.size; ) {
    before = found.size;
    for (const [child, parent] of all) if (found.has(parent) || parent === pid) found.add(child);
  }
  return [...found];
}

/** argv; null if the process has exited or hides it. */
export function argvOf(pid: number): string[] | null {
  try {
    const text = readFileSync(`/proc/${pid}/cmdline`, 'utf8');
    return text ? text.slice(0, -1).split('\0') : null;
  } catch {
    return null;
  }
}

/** Sends a signal to one process; false if it has exited. Never to a group or to pid 1 or below. */
export function signal(pid: number, name: NodeJS.Signals): boolean {
  if (!Number.isInteger(pid) || pid <= 1 || pid === process.pid) return false;
  try {
    process.kill(pid, name);
    return true;
  } catch {
    return false;
  }
}

/** Identifies this boot and pid namespace, within which pids and start times are valid. */
export function machineId(): string {
  if (!linux) return process.platform;
  const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  return `${boot}/${readlinkSync('/proc/self/ns/pid').replace(/\D/g, '')}`;
}
