import { readdirSync, readFileSync } from 'node:fs';

/** A process of the developer. CPU in ms; bytes are those that went to and came from disks. */
export interface DeveloperProcess {
  pid: number;
  name: string;
  cpuMs: number;
  /** Of the children that it has waited for, and of theirs. */
  childrenCpuMs: number;
  diskBytes: number;
}

export interface ProcessScan {
  processes: DeveloperProcess[];
  /** Used by sessions that have ended, whose processes the agent has waited for. */
  ended: { cpuMs: number; diskBytes: number };
}

/** USER_HZ is 100 on every Linux. */
const msPerTick = 10;
/** Processes read before yielding to the event loop: about a millisecond. */
const processesAtOnce = 64;

/**
 * Reads the developer's processes from /proc: all but the agent and, if `workspaceId` is given (because processes of others are
 * visible), only those with it in their environment, and their descendants. Reads are synchronous, since a read of /proc takes
 * 10 µs and the asynchronous one ten times that, and every workspace pays for it.
 */
export function makeProcessScanner(options: {
  root?: string;
  workspaceId?: string | undefined;
  /** Whether disk usage is to be counted per process. */
  withDisk: boolean;
}): { scan(): Promise<ProcessScan> } {
  const { root = '', withDisk } = options;
  const marker = options.workspaceId && `CDE_WORKSPACE_ID=${options.workspaceId}\0`;
  /** By PID and start time. */
  let known = new Map<string, { isMarked: boolean; ticks: number; diskBytes: number }>();

  const read = (path: string) => {
    try {
      return readFileSync(`${root}/proc/${path}`, 'latin1');
    } catch {
      return '';
    }
  };

  function readProcess(pid: string) {
    const text = read(`${pid}/stat`);
    // The name may contain anything.
    const end = text.lastIndexOf(')');
    if (end < 0) return null;
    const fields = text.slice(end + 2).split(' ');
    const ticks = (from: number) => Number(fields[from]) + Number(fields[from + 1]);
    const own = ticks(11);
    const children = ticks(13);
    return {
      pid: Number(pid),
      parent: Number(fields[1]),
      key: `${pid} ${fields[19]}`,
      name: Buffer.from(text.slice(text.indexOf('(') + 1, end), 'latin1').toString(),
      ticks: own + children,
      cpuMs: own * msPerTick,
      childrenCpuMs: children * msPerTick,
    };
  }

  return {
    async scan() {
      const pids = (() => {
        try {
          return readdirSync(`${root}/proc`).filter((name) => /^\d+$/.test(name));
        } catch {
          return [];
        }
      })();
      const next: typeof known = new Map();
      const found = new Map<number, NonNullable<ReturnType<typeof readProcess>>>();
      for (const [index, pid] of pids.entries()) {
        if (index % processesAtOnce === processesAtOnce - 1) await new Promise(setImmediate);
        const one = readProcess(pid);
        if (!one) continue;
        found.set(one.pid, one);
        const before = known.get(one.key);
        next.set(one.key, {
          isMarked: before?.isMarked ?? (!marker || `${read(`${pid}/environ`)}\0`.includes(marker)),
          ticks: one.ticks,
          diskBytes:
            !withDisk || one.pid === process.pid
              ? 0
              : // A process that did not run did not use the disk.
                before?.ticks === one.ticks
                ? before.diskBytes
                : diskBytesOf(read(`${pid}/io`)),
        });
      }
      known = next;
      const belongs = new Map<number, boolean>();
      const isOwn = (pid: number): boolean => {
        const one = found.get(pid);
        if (!one || pid === process.pid) return false;
        let result = belongs.get(pid);
        if (result === undefined) {
          // Against cycles, which reused PIDs could form.
          belongs.set(pid, false);
          result = next.get(one.key)!.isMarked || isOwn(one.parent);
          belongs.set(pid, result);
        }
        return result;
      };
      const self = found.get(process.pid);
      return {
        processes: [...found.values()]
          .filter(({ pid }) => isOwn(pid))
          .map(({ pid, name, cpuMs, childrenCpuMs, key }) => ({
            pid,
            name,
            cpuMs,
            childrenCpuMs,
            diskBytes: next.get(key)!.diskBytes,
          })),
        ended: {
          cpuMs: self?.childrenCpuMs ?? 0,
          diskBytes: withDisk ? diskBytesOf(read('self/io')) - agentDiskBytes(root) : 0,
        },
      };
    },
  };
}

function diskBytesOf(io: string): number {
  const field = (name: string) => Number(new RegExp(`^${name}: (\\d+)$`, 'm').exec(io)?.[1] ?? 0);
  return field('read_bytes') + field('write_bytes');
}

/** Of the agent itself. The sum of its threads: the process's own figure includes children that it has waited for. */
export function agentDiskBytes(root = ''): number {
  try {
    const folder = `${root}/proc/self/task`;
    return readdirSync(folder).reduce(
      (sum, thread) => sum + diskBytesOf(readFileSync(`${folder}/${thread}/io`, 'latin1')),
      0,
    );
  } catch {
    return 0;
  }
}
