import type { UsageSource } from '../../stats/usage.ts';
import type { Activity } from '../activity.ts';
import { findBuild } from './builds.ts';
import { agentDiskBytes, type DeveloperProcess, makeProcessScanner, type ProcessScan } from './processes.ts';
import { makeWindow } from './window.ts';

/**
 * 5 % of one core, on average over a minute. Editors, language servers and dev servers that wait for changes wake up for timers only;
 * a compiler or a test runner uses ten times as much.
 */
const busyCpuMsPerSecond = 50;
/**
 * 512 KiB/s is 30 MiB in a minute. Editors, databases and logs at rest write some KiB/s; a checkout, an installation or an import
 * writes megabytes.
 */
const busyDiskBytesPerSecond = 512 * 1024;
/**
 * 32 KiB/s is 2 MiB in a minute. Open connections at rest exchange less than 1 KiB/s; a download over the slowest line is above.
 */
const busyNetworkBytesPerSecond = 32 * 1024;
/** Reports may follow each other closely. A sample after less than this adds nothing. */
const minIntervalMs = 1000;

export interface WorkSampler {
  /** Records what the developer's processes have done since the last call. */
  sample(): Promise<void>;
  /** Work until the returned function is called does not count. */
  pause(): () => Promise<void>;
}

/** Measures the developer's own processes: all but the agent. */
export function makeWorkSampler(options: {
  activity: Activity;
  usage: UsageSource;
  /** Null: the control group holds exactly this workspace. Otherwise its processes are recognized by their environment. */
  workspaceId: string | null;
  /** The usage of the agent's helper processes that have ended. */
  helpers: () => { cpuMs: number; diskBytes: number };
  /** Bytes on this network's interfaces; null if the network is shared or unknown. */
  interfaceBytes: () => number | null;
  /** Bytes that the agent itself sent and received. */
  ownTraffic: () => number;
  root?: string;
  now?: () => number;
}): WorkSampler {
  const { activity, usage, workspaceId, root = '', now = () => performance.now() } = options;
  const isGroup = usage.isGroup && workspaceId === null;
  let scanner: ReturnType<typeof makeProcessScanner> | undefined;
  const cpu = makeWindow(busyCpuMsPerSecond);
  const disk = makeWindow(busyDiskBytesPerSecond);
  const network = makeWindow(busyNetworkBytesPerSecond);
  let before: ProcessScan | undefined;
  let sampledAt = Number.NEGATIVE_INFINITY;
  let cpuMs = 0;
  let diskBytes = 0;
  let inProgress: Promise<void> | undefined;
  let paused = 0;
  /** Usage up to the next sample does not count. */
  let mustRebase = false;

  async function sample(): Promise<void> {
    const groupDisk = isGroup ? await usage.diskBytes() : null;
    scanner ??= makeProcessScanner({
      root,
      withDisk: groupDisk === null,
      ...(workspaceId !== null && { workspaceId }),
    });
    const scan = await scanner.scan();
    if (isGroup) {
      const own = process.cpuUsage();
      cpuMs = (await usage.cpuMs()) - (own.user + own.system) / 1000;
    } else
      cpuMs += usedBetween(
        before,
        scan,
        cpuOf,
        (one) => one.ended.cpuMs,
        (one) => one.cpuMs,
      );
    diskBytes =
      groupDisk === null
        ? diskBytes + usedBetween(before, scan, diskOf, (one) => one.ended.diskBytes, diskOf)
        : groupDisk - agentDiskBytes(root);
    const at = now();
    const { helpers } = options;
    const bytes = options.interfaceBytes();
    const totals = {
      cpu: cpuMs - (isGroup ? 0 : helpers().cpuMs),
      disk: diskBytes - (groupDisk === null ? helpers().diskBytes : 0),
      network: bytes === null ? null : bytes - options.ownTraffic(),
    };
    if (mustRebase) {
      cpu.rebase(totals.cpu, at);
      disk.rebase(totals.disk, at);
      if (totals.network !== null) network.rebase(totals.network, at);
      mustRebase = false;
      before = scan;
      return;
    }
    if (cpu.isBusy(totals.cpu, at)) activity.record('process-cpu', busiest(before, scan, cpuOf));
    if (disk.isBusy(totals.disk, at))
      activity.record('disk-throughput', busiest(before, scan, groupDisk === null ? diskOf : cpuOf));
    if (totals.network !== null && network.isBusy(totals.network, at))
      activity.record('network-throughput', busiest(before, scan, cpuOf));
    const build = await findBuild(scan.processes, root);
    if (build) activity.record('build', build);
    before = scan;
  }

  function start(): Promise<void> {
    sampledAt = now();
    inProgress = sample().finally(() => {
      inProgress = undefined;
    });
    return inProgress;
  }

  return {
    sample() {
      if (inProgress) return inProgress;
      if (paused > 0 || now() - sampledAt < minIntervalMs) return Promise.resolve();
      return start();
    },
    pause() {
      paused += 1;
      return async () => {
        paused -= 1;
        if (paused > 0) return;
        await inProgress?.catch(() => {});
        mustRebase = true;
        // If this fails, the next sample is not recorded.
        await start().catch(() => {});
      };
    },
  };
}

const cpuOf = ({ cpuMs, childrenCpuMs }: DeveloperProcess) => cpuMs + childrenCpuMs;
const diskOf = ({ diskBytes }: DeveloperProcess) => diskBytes;

/**
 * What the processes used between two scans. The usage of a process that has ended moves to the parent that waited for it, so the
 * difference of the sums is right. If no parent waited for it, the result is at least what the living processes used themselves.
 */
function usedBetween(
  before: ProcessScan | undefined,
  scan: ProcessScan,
  total: (one: DeveloperProcess) => number,
  ended: (scan: ProcessScan) => number,
  own: (one: DeveloperProcess) => number,
): number {
  if (!before) return 0;
  const sum = (one: ProcessScan) => ended(one) + one.processes.reduce((all, each) => all + total(each), 0);
  const earlier = new Map(before.processes.map((one) => [one.pid, one]));
  const living = scan.processes.reduce((all, one) => {
    const past = earlier.get(one.pid);
    return past ? all + Math.max(0, own(one) - own(past)) : all;
  }, 0);
  return Math.max(0, sum(scan) - sum(before), living);
}

/** The name of the process that used most since the scan before. */
function busiest(
  before: ProcessScan | undefined,
  scan: ProcessScan,
  usageOf: (one: DeveloperProcess) => number,
): string | undefined {
  const earlier = new Map(before?.processes.map((one) => [one.pid, usageOf(one)]));
  let most = 0;
  let name: string | undefined;
  for (const one of scan.processes) {
    const used = usageOf(one) - (earlier.get(one.pid) ?? 0);
    if (used > most) {
      most = used;
      ({ name } = one);
    }
  }
  return name;
}
