import { readdir, readFile, stat, statfs } from 'node:fs/promises';
import { cpus, freemem, loadavg, totalmem } from 'node:os';
import { type AgentManifest, type AgentStats, postAgentStats } from '@cde/api/agent.ts';
import { makePortScanner } from '../network/ports.ts';
import type { ServerClient } from '../server/client.ts';
import type { Sessions } from '../sessions.ts';

/** Measures what the workspace uses. `sample` is cheap, and gives the event loop back at every file. */
export interface StatsCollector {
  sample(): Promise<AgentStats>;
}

/** Makes a collector; CPU is measured between two samples, the first since now. `root` is '' but in tests. */
export async function makeStatsCollector(options: {
  home: () => string;
  /** False: the home lies on a disk of the machine with much else, so what is in it is counted. */
  ownVolume?: boolean;
  /** In bytes, where the control group does not tell. */
  memoryLimit?: number | null;
  sessions: Sessions;
  /** Round trips to the satellites; none without. */
  satellites?: () => AgentStats['satellites'];
  root?: string;
  now?: () => number;
}): Promise<StatsCollector> {
  const { root = '', now = Date.now, ownVolume } = options;
  const counted = ownVolume === false ? countHome(options.home) : undefined;
  const usage = await findUsageSource(root);
  const ports = makePortScanner(root);
  let lastAt = performance.now();
  let lastUsed = await usage.cpuMs();

  return {
    async sample() {
      const [used, memory, disk, open] = await Promise.all([
        usage.cpuMs(),
        usage.memory(),
        counted ? undefined : ownDisk(options.home()),
        ports.scan(),
      ]);
      const at = performance.now();
      const cpuPercent = at > lastAt ? (100 * Math.max(used - lastUsed, 0)) / (at - lastAt) : 0;
      lastAt = at;
      lastUsed = used;
      return {
        at: new Date(now()).toISOString(),
        cpuPercent: Math.round(cpuPercent * 10) / 10,
        load1: loadavg()[0]!,
        memoryUsedBytes: memory.used,
        memoryLimitBytes: memory.limit ?? options.memoryLimit ?? null,
        homeUsedBytes: disk ? (disk.blocks - disk.bfree) * disk.bsize : (counted?.() ?? null),
        homeTotalBytes: disk ? disk.blocks * disk.bsize : null,
        openPorts: open,
        sessions: options.sessions.list(),
        satellites: options.satellites?.() ?? [],
      };
    },
  };
}

const ownDisk = (home: string) => statfs(home).catch(() => undefined);

/** Between two counts of a home that shares its disk, which may hold a million files. */
const countEveryMs = 10 * 60_000;
const countWithinMs = 5 * 60_000;

/** Bytes in the home as of the last count; null before there is one. Each call starts the next count when it is due. */
function countHome(home: () => string): () => number | null {
  let used: number | null = null;
  let next = 0;
  return () => {
    if (performance.now() >= next) {
      next = performance.now() + countEveryMs;
      const { execFile } = process.getBuiltinModule('node:child_process');
      const options = { timeout: countWithinMs, maxBuffer: 1 << 20 };
      execFile('nice', ['-n', '19', 'du', '-skx', home()], options, (_error, stdout) => {
        // It complains of files that it may not read, and counts the others.
        const kibibytes = /^(\d+)\s/.exec(stdout)?.[1];
        if (kibibytes) used = Number(kibibytes) * 1024;
      });
    }
    return used;
  };
}

/**
 * Where CPU and memory are counted: the workspace's control group, or the processes that can be seen from here, which in a
 * workspace without a group of its own are its own ones. Never the machine, but where there is neither.
 */
interface UsageSource {
  /** CPU time used since some fixed moment. */
  cpuMs(): Promise<number>;
  memory(): Promise<{ used: number; limit: number | null }>;
}

const read = (path: string) => readFile(path, 'utf8');
const readable = (path: string) =>
  read(path).then(
    () => true,
    () => false,
  );

async function findUsageSource(root: string): Promise<UsageSource> {
  const own = await read(`${root}/proc/self/cgroup`).catch(() => '');
  const cgroupRoot = `${root}/sys/fs/cgroup`;
  // Version 2: one line `0::/path`. In a namespace of its own the path is `/`, and the files lie at the top.
  const two = /^0::(\/.*)$/m.exec(own)?.[1];
  if (two !== undefined) {
    for (const folder of [`${cgroupRoot}${two === '/' ? '' : two}`, cgroupRoot]) {
      if ((await readable(`${folder}/memory.current`)) && (await readable(`${folder}/cpu.stat`))) {
        return cgroupV2(folder);
      }
    }
  }
  // Version 1: a line for each controller, `4:memory:/path`.
  const path = (controller: string) =>
    new RegExp(`^\\d+:(?:[^:]*,)?${controller}(?:,[^:]*)?:(/.*)$`, 'm').exec(own)?.[1];
  for (const folder of [path('memory'), '/']) {
    const memory = `${cgroupRoot}/memory${folder === '/' ? '' : folder}`;
    const cpu = `${cgroupRoot}/cpuacct${path('cpuacct') === '/' || folder === '/' ? '' : path('cpuacct')}`;
    if (
      folder !== undefined &&
      // Only the group of the whole machine has this file.
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

/** As `docker stats` and the kubelet count: page cache that the kernel can drop at once is not in use. */
function withoutCache(current: number, cache: string | undefined, max: string) {
  const limit = Number(max);
  return {
    used: Math.max(current - Number(cache ?? 0), 0),
    // "max", and version 1's nearly endless number, are no limit.
    limit: Number.isFinite(limit) && limit > 0 && limit < totalmem() ? limit : null,
  };
}

/** USER_HZ is 100 on every Linux. */
const msPerTick = 10;

/** Processes looked at before other work gets its turn. */
const processesAtOnce = 8;

/** Those of this user: without a pid namespace the machine's are seen as well. */
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
    async cpuMs() {
      const ticks = await each(async (folder) => {
        const text = await read(`${folder}/stat`);
        // Behind the name, which may hold anything: utime, stime, and those of children that have ended.
        const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
        return fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0);
      });
      return ticks.reduce((sum, value) => sum + value, 0) * msPerTick;
    },
    async memory() {
      const sizes = await each(async (folder) => {
        // What is shared (libraries, files) is not counted for each process again.
        const anonymous = /^RssAnon:\s+(\d+) kB$/m.exec(await read(`${folder}/status`))?.[1];
        return Number(anonymous ?? 0) * 1024;
      });
      return { used: sizes.reduce((sum, size) => sum + size, 0), limit: null };
    },
  };
}

function wholeMachine(root: string): UsageSource {
  return {
    async cpuMs() {
      // Not os.cpus() where it can be helped: with hundreds of cores that takes tens of milliseconds.
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

/** What has changed is reported so soon: several satellites are measured at the same time. */
const changeDelayMs = 250;

/**
 * Reports a sample now and every `everyMs`, until `signal` is aborted, and soon after other satellites or round trips are
 * known: clients choose their way by these, and an agent that has just started has measured none for its first report.
 * A report that fails is not repeated: the next one says more. `onFailure` hears of it.
 */
export function reportStats(options: {
  collector: StatsCollector;
  client: ServerClient;
  everyMs: () => number;
  signal: AbortSignal;
  onFailure: (error: unknown) => void;
  /** The satellites as of now, as the server names them with each answer. */
  onSatellites?: (satellites: AgentManifest['satellites']) => void;
  /** The round trips of the moment, and who tells of others. */
  satellites?: { current: () => AgentStats['satellites']; onChange(tell: () => void): void };
}): void {
  const { signal, satellites } = options;
  let timer: NodeJS.Timeout | undefined;
  let reporting = false;
  let reported = '';
  /** There is something that the report under way does not say. */
  let hasUnreportedChange = false;
  async function report() {
    const started = performance.now();
    reporting = true;
    hasUnreportedChange = false;
    try {
      const stats = await options.collector.sample();
      if (signal.aborted) return;
      reported = JSON.stringify(stats.satellites);
      const reply = await options.client.call(postAgentStats, { body: stats, signal });
      // A server of an earlier release says nothing.
      if (reply?.satellites) options.onSatellites?.(reply.satellites);
    } catch (error) {
      if (!signal.aborted) options.onFailure(error);
    }
    reporting = false;
    if (signal.aborted) return;
    const inMs = hasUnreportedChange ? changeDelayMs : options.everyMs() - (performance.now() - started);
    timer = setTimeout(report, Math.max(inMs, 100));
  }
  satellites?.onChange(() => {
    if (signal.aborted || hasUnreportedChange || JSON.stringify(satellites.current()) === reported) return;
    hasUnreportedChange = true;
    if (reporting) return;
    clearTimeout(timer);
    timer = setTimeout(report, changeDelayMs);
  });
  signal.addEventListener('abort', () => clearTimeout(timer), { once: true });
  void report();
}
