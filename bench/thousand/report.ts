import type { Measured } from './meter.ts';

export interface Phase {
  name: string;
  count: number;
  /** Events, in milliseconds since the start of the phase. */
  marks: Record<string, number>;
  measured: Measured;
  /** The p99 of an idle process's event loop in the same time, which shows the effect of the machine's load. */
  idleLoopP99: number;
  transactions: number;
  more?: string[];
}

const mib = (bytes: number) => `${(bytes / 2 ** 20).toFixed(0)} MiB`;
const seconds = (ms: number) => `${(ms / 1000).toFixed(1)} s`;
const sum = (values: Iterable<number>) => [...values].reduce((total, value) => total + value, 0);

/** All calls except watches and discovery. */
export const callsOf = ({ calls }: Measured): number =>
  sum(Object.entries(calls).flatMap(([key, count]) => (/^(watch|discover) /.test(key) ? [] : [count])));

function byVerb({ calls }: Measured): string {
  const verbs = new Map<string, number>();
  for (const [key, count] of Object.entries(calls)) {
    const verb = key.split(' ')[0]!;
    verbs.set(verb, (verbs.get(verb) ?? 0) + count);
  }
  return [...verbs].map(([verb, count]) => `${verb} ${count}`).join(', ');
}

export const quantile = (values: readonly number[], part: number): number =>
  [...values].sort((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * part))] ?? 0;

export function print({ name, count, marks, measured, idleLoopP99, transactions, more = [] }: Phase): void {
  const { loop, cpuMs, wallMs } = measured;
  const { callMs } = measured;
  const calls = callsOf(measured);
  const lines = [
    Object.entries(marks)
      .map(([mark, ms]) => `${mark} ${seconds(ms)}`)
      .join(', '),
    ...more,
    `API calls        ${(calls / count).toFixed(2)} a workspace (${byVerb(measured) || 'none'}), ${(callMs / Math.max(calls, 1)).toFixed(0)} ms each, ${(callMs / wallMs).toFixed(1)} in flight on average`,
    `                 ${
      Object.entries(measured.calls)
        .sort(([, a], [, b]) => b - a)
        .map(([key, calls]) => `${key} ${calls}`)
        .join(', ') || 'none'
    }`,
    ...(Object.keys(measured.refused).length > 0
      ? [`rejected         ${JSON.stringify(measured.refused)}`]
      : []),
    `watches          ${Object.entries(measured.watches)
      .map(([kind, { open, most, opened }]) => `${kind} ${open} open (max ${most}, opened ${opened})`)
      .join(', ')}`,
    `server           ${(cpuMs / count).toFixed(1)} ms CPU a workspace (${((cpuMs / wallMs) * 100).toFixed(0)} % of a core over ${seconds(wallMs)}), ${(transactions / count).toFixed(1)} transactions`,
    `memory           RSS peak ${mib(measured.rssPeak)}, heap peak ${mib(measured.heapPeak)}, live after it ${mib(measured.heapLive)}`,
    `event loop       p50 ${loop.p50.toFixed(1)}, p99 ${loop.p99.toFixed(1)}, max ${loop.max.toFixed(0)} ms (p99 of an idle process beside it: ${idleLoopP99.toFixed(1)}); max CPU between two turns ${measured.blockCpuMs.toFixed(0)} ms; longest collections ${measured.collections.minorMs.toFixed(0)} (minor) and ${measured.collections.majorMs.toFixed(0)} ms (major), ${measured.collections.sumMs.toFixed(0)} ms in all`,
  ];
  console.log(`\n${name}, ${count} workspaces\n${lines.map((line) => `  ${line}`).join('\n')}`);
}
