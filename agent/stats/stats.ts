import { statfs } from 'node:fs/promises';
import { loadavg } from 'node:os';
import type { AgentStats } from '@cde/api/agent.ts';
import { makePortScanner } from '../network/ports.ts';
import type { Sessions } from '../sessions.ts';
import { countHome } from './home-size.ts';
import { findUsageSource, type UsageSource } from './usage.ts';

/** Measures the workspace's resource usage. `sample` is cheap and never blocks the event loop. */
export interface StatsCollector {
  sample(): Promise<AgentStats>;
}

/** CPU usage is measured between two samples, at first since this call. Tests pass `root`. */
export async function makeStatsCollector(options: {
  home: () => string;
  /** False if the home shares its disk with other data, so that its size must be counted. */
  ownVolume?: boolean;
  /** In bytes, if the control group has no limit. */
  memoryLimit?: number | null;
  sessions: Sessions;
  /** Round trips to the satellites. */
  satellites?: () => AgentStats['satellites'];
  /** Where CPU and memory are measured; found if it is not given. */
  usage?: UsageSource;
  root?: string;
  now?: () => number;
  /** Monotonic milliseconds. */
  elapsedMs?: () => number;
}): Promise<StatsCollector> {
  const { root = '', now = Date.now, elapsedMs = () => performance.now(), ownVolume } = options;
  const counted = ownVolume === false ? countHome(options.home) : undefined;
  const usage = options.usage ?? (await findUsageSource(root));
  const ports = makePortScanner(root);
  let lastAt = elapsedMs();
  let lastUsed = await usage.cpuMs();

  return {
    async sample() {
      const [used, memory, disk, open] = await Promise.all([
        usage.cpuMs(),
        usage.memory(),
        diskOf(options.home()),
        ports.scan(),
      ]);
      const at = elapsedMs();
      const cpuPercent = at > lastAt ? (100 * Math.max(used - lastUsed, 0)) / (at - lastAt) : 0;
      lastAt = at;
      lastUsed = used;
      return {
        at: new Date(now()).toISOString(),
        cpuPercent: Math.round(cpuPercent * 10) / 10,
        load1: loadavg()[0]!,
        memoryUsedBytes: memory.used,
        memoryLimitBytes: memory.limit ?? options.memoryLimit ?? null,
        homeUsedBytes: counted ? counted() : disk ? disk.usedBytes : null,
        homeTotalBytes: disk && !counted ? disk.totalBytes : null,
        homeFreeBytes: disk?.freeBytes ?? null,
        homeFullPercent: disk?.fullPercent ?? null,
        openPorts: open,
        sessions: options.sessions.list(),
        satellites: options.satellites?.() ?? [],
      };
    },
  };
}

/** Null if the home is not there. */
async function diskOf(home: string) {
  const found = await statfs(home).catch(() => null);
  if (!found) return null;
  const { blocks, bfree, bavail, bsize } = found;
  // As `df` counts: a part is reserved for root.
  const usable = blocks - bfree + bavail;
  return {
    totalBytes: blocks * bsize,
    usedBytes: (blocks - bfree) * bsize,
    freeBytes: bavail * bsize,
    fullPercent: usable > 0 ? Math.round((1000 * (blocks - bfree)) / usable) / 10 : null,
  };
}
