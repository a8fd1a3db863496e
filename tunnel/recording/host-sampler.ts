import { readFile } from 'node:fs/promises';
import type { HostSample } from '@cde/api/diagnosis.ts';

/** Measures how busy this machine is, as far as this process feels it. Costs no timer of its own. */
export interface HostSampler {
  /** How late a timer ran, in milliseconds. */
  late(ms: number): void;
  /** What was measured since the last call. */
  sample(): Promise<HostSample>;
}

export interface GroupUsage {
  /** The time in which the control group was held at its CPU limit, in milliseconds since a fixed moment. */
  throttledMs: number | null;
  memoryPercent: number | null;
}

const noGroup: GroupUsage = { throttledMs: null, memoryPercent: null };

/** The time in which this process waited for a CPU, in milliseconds; null if the system does not tell. */
export async function waitedMs(root = ''): Promise<number | null> {
  // Of the main thread: time on a CPU, time waiting for one (both in ns), and how often.
  const text = await readFile(`${root}/proc/self/schedstat`, 'utf8').catch(() => '');
  const waited = /^\d+ (\d+) \d+/.exec(text)?.[1];
  return waited === undefined ? null : Number(waited) / 1e6;
}

export async function makeHostSampler(
  options: { root?: string; now?: () => number; group?: () => Promise<GroupUsage> } = {},
): Promise<HostSampler> {
  const { root = '', now = () => performance.now(), group = async () => noGroup } = options;
  const read = async () => ({ at: now(), waited: await waitedMs(root), ...(await group()) });
  let last = await read();
  let delays: number[] = [];
  return {
    late: (ms) => void delays.push(Math.max(0, ms)),
    async sample() {
      const next = await read();
      const elapsed = Math.max(next.at - last.at, 1);
      const share = (before: number | null, after: number | null) =>
        before === null || after === null ? null : Math.max(0, (100 * (after - before)) / elapsed);
      // One late timer in ten seconds is a garbage collection.
      const sorted = delays.sort((one, other) => other - one);
      const sample = {
        loopDelayMs: round(sorted[Math.min(1, sorted.length - 1)] ?? 0),
        cpuWaitPercent: round(share(last.waited, next.waited)),
        throttledPercent: round(share(last.throttledMs, next.throttledMs)),
        memoryPercent: round(next.memoryPercent),
      };
      last = next;
      delays = [];
      return sample;
    },
  };
}

function round<T extends number | null>(value: T): T {
  return (value === null ? null : Math.round(value * 10) / 10) as T;
}
