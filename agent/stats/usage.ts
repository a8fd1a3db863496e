import { readdir, readFile, stat } from 'node:fs/promises';
import { cpus, freemem, totalmem } from 'node:os';

/**
 * Where CPU and memory are measured: the workspace's control group or, without one, its user's visible processes. The whole
 * machine only if neither is available.
 */
export interface UsageSource {
  /** Whether it measures a control group, which holds exactly the workspace. */
  isGroup: boolean;
  /** CPU time used since a fixed moment. */
  cpuMs(): Promise<number>;
  memory(): Promise<{ used: number; limit: number | null }>;
  /** Bytes read from and written to disks since a fixed moment; null if that is not measured here. */
  diskBytes(): Promise<number | null>;
  /** Since a fixed moment: for how long the workspace was held at its CPU limit, and how many of its processes ran out of memory. */
  limitsHit(): Promise<{ throttledMs: number | null; outOfMemoryKills: number }>;
}

const read = (path: string) => readFile(path, 'utf8');
const readable = (path: string) =>
  read(path).then(
    () => true,
    () => false,
  );

export async function findUsageSource(root = ''): Promise<UsageSource> {
  const own = await read(`${root}/proc/self/cgroup`).catch(() => '');
  const cgroupRoot = `${root}/sys/fs/cgroup`;
  // Version 2 has one line, `0::/path`. In a cgroup namespace the path is `/` and the files are at the root.
  const two = /^0::(\/.*)$/m.exec(own)?.[1];
  if (two !== undefined) {
    for (const folder of [`${cgroupRoot}${two === '/' ? '' : two}`, cgroupRoot]) {
      if ((await readable(`${folder}/memory.current`)) && (await readable(`${folder}/cpu.stat`))) {
        return cgroupV2(folder);
      }
    }
  }
  // Version 1 has a line per controller: `4:memory:/path`.
  const path = (controller: string) =>
    new RegExp(`^\\d+:(?:[^:]*,)?${controller}(?:,[^:]*)?:(/.*)$`, 'm').exec(own)?.[1];
  for (const folder of [path('memory'), '/']) {
    const memory = `${cgroupRoot}/memory${folder === '/' ? '' : folder}`;
    const cpu = `${cgroupRoot}/cpuacct${path('cpuacct') === '/' || folder === '/' ? '' : path('cpuacct')}`;
    if (
      folder !== undefined &&
      // Only the root group, that of the whole machine, has this file.
      !(await readable(`${memory}/release_agent`)) &&
      (await readable(`${memory}/memory.usage_in_bytes`)) &&
      (await readable(`${cpu}/cpuacct.usage`))
    ) {
      return cgroupV1(memory, cpu);
    }
  }
  return (await readable(`${root}/proc/self/stat`)) ? ownProcesses(root) : wholeMachine(root);
}

function cgroupV2(folder: string): UsageSource {
  return {
    isGroup: true,
    async diskBytes() {
      // Missing if the controller is not enabled for this group.
      const text = await read(`${folder}/io.stat`).catch(() => null);
      return text === null ? null : sumOf(text, /\b[rw]bytes=(\d+)/g);
    },
    async limitsHit() {
      const [cpu, memory] = await Promise.all(
        ['cpu.stat', 'memory.events'].map((file) => read(`${folder}/${file}`).catch(() => '')),
      );
      // Missing without the controller; zero without a limit.
      const throttled = /^throttled_usec (\d+)$/m.exec(cpu!)?.[1];
      return {
        throttledMs: throttled === undefined ? null : Number(throttled) / 1000,
        outOfMemoryKills: Number(/^oom_kill (\d+)$/m.exec(memory!)?.[1] ?? 0),
      };
    },
    async cpuMs() {
      const text = await read(`${folder}/cpu.stat`).catch(() => '');
      return Number(/^usage_usec (\d+)$/m.exec(text)?.[1] ?? 0) / 1000;
    },
    async memory() {
      const [current, max, stat] = await Promise.all(
        ['memory.current', 'memory.max', 'memory.stat'].map((file) =>
          read(`${folder}/${file}`).catch(() => ''),
        ),
      );
      return withoutCache(Number(current), /^inactive_file (\d+)$/m.exec(stat!)?.[1], max!.trim());
    },
  };
}

function cgroupV1(memory: string, cpu: string): UsageSource {
  return {
    isGroup: true,
    async diskBytes() {
      const blkio = memory.replace('/memory', '/blkio');
      const text = await read(`${blkio}/blkio.throttle.io_service_bytes`).catch(() => null);
      return text === null ? null : sumOf(text, / (?:Read|Write) (\d+)/g);
    },
    async limitsHit() {
      // The controllers `cpu` and `cpuacct` are mounted together.
      const [quota, oom] = await Promise.all(
        [`${cpu}/cpu.stat`, `${memory}/memory.oom_control`].map((file) => read(file).catch(() => '')),
      );
      const throttled = /^throttled_time (\d+)$/m.exec(quota!)?.[1];
      return {
        throttledMs: throttled === undefined ? null : Number(throttled) / 1e6,
        outOfMemoryKills: Number(/^oom_kill (\d+)$/m.exec(oom!)?.[1] ?? 0),
      };
    },
    async cpuMs() {
      return Number(await read(`${cpu}/cpuacct.usage`).catch(() => '0')) / 1e6;
    },
    async memory() {
      const [current, max, stat] = await Promise.all(
        ['memory.usage_in_bytes', 'memory.limit_in_bytes', 'memory.stat'].map((file) =>
          read(`${memory}/${file}`).catch(() => ''),
        ),
      );
      return withoutCache(Number(current), /^total_inactive_file (\d+)$/m.exec(stat!)?.[1], max!.trim());
    },
  };
}

/** Like `docker stats` and the kubelet: page cache that the kernel can drop at once does not count. */
function withoutCache(current: number, cache: string | undefined, max: string) {
  const limit = Number(max);
  return {
    used: Math.max(current - Number(cache ?? 0), 0),
    // "max", and the huge default of version 1, mean no limit.
    limit: Number.isFinite(limit) && limit > 0 && limit < totalmem() ? limit : null,
  };
}

const sumOf = (text: string, pattern: RegExp) =>
  [...text.matchAll(pattern)].reduce((sum, [, value]) => sum + Number(value), 0);

/** USER_HZ is 100 on every Linux. */
const msPerTick = 10;

/** Processes inspected before yielding to the event loop. */
const processesAtOnce = 8;

/** Only this user's: without a PID namespace all of the machine's are visible. */
function ownProcesses(root: string): UsageSource {
  const uid = process.getuid?.();
  async function each<T>(look: (folder: string) => Promise<T | undefined>): Promise<T[]> {
    const pids = (await readdir(`${root}/proc`)).filter((name) => /^\d+$/.test(name));
    const found: (T | undefined)[] = [];
    for (let at = 0; at < pids.length; at += processesAtOnce)
      found.push(
        ...(await Promise.all(
          pids.slice(at, at + processesAtOnce).map(async (pid) => {
            const folder = `${root}/proc/${pid}`;
            const owner = await stat(folder).catch(() => undefined);
            return owner?.uid === uid ? look(folder).catch(() => undefined) : undefined;
          }),
        )),
      );
    return found.filter((one) => one !== undefined);
  }
  return {
    isGroup: false,
    diskBytes: async () => null,
    limitsHit: async () => ({ throttledMs: null, outOfMemoryKills: 0 }),
    async cpuMs() {
      const ticks = await each(async (folder) => {
        const text = await read(`${folder}/stat`);
        // After the name, which may contain anything: utime, stime, cutime and cstime.
        const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
        return fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0);
      });
      return ticks.reduce((sum, value) => sum + value, 0) * msPerTick;
    },
    async memory() {
      const sizes = await each(async (folder) => {
        // Shared pages (libraries, files) would be counted once per process.
        const anonymous = /^RssAnon:\s+(\d+) kB$/m.exec(await read(`${folder}/status`))?.[1];
        return Number(anonymous ?? 0) * 1024;
      });
      return { used: sizes.reduce((sum, size) => sum + size, 0), limit: null };
    },
  };
}

function wholeMachine(root: string): UsageSource {
  return {
    isGroup: false,
    diskBytes: async () => null,
    limitsHit: async () => ({ throttledMs: null, outOfMemoryKills: 0 }),
    async cpuMs() {
      // Not os.cpus(), which takes tens of milliseconds with hundreds of cores.
      const text = await read(`${root}/proc/stat`).catch(() => '');
      const ticks = /^cpu +(\d+) (\d+) (\d+) \d+ \d+ (\d+) (\d+)/.exec(text)?.slice(1);
      if (ticks) return ticks.reduce((sum, value) => sum + Number(value), 0) * msPerTick;
      let used = 0;
      for (const { times } of cpus()) used += times.user + times.nice + times.sys + times.irq;
      return used;
    },
    async memory() {
      const text = await read(`${root}/proc/meminfo`).catch(() => '');
      const available = /^MemAvailable:\s+(\d+) kB$/m.exec(text)?.[1];
      const free = available ? Number(available) * 1024 : freemem();
      return { used: Math.max(totalmem() - free, 0), limit: null };
    },
  };
}
