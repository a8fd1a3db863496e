import type { HostSample, LegSample } from '@cde/api/diagnosis.ts';

// Samples are stored as arrays: names would take most of the space.

export const legToRow = (leg: LegSample | null): number[] | null =>
  leg && [leg.p50, leg.p95, leg.max, leg.count, leg.unanswered];

export function legFromRow(row: number[] | null): LegSample | null {
  if (!row) return null;
  const [p50, p95, max, count, unanswered] = row as [number, number, number, number, number];
  return { p50, p95, max, count, unanswered };
}

export const hostToRow = (host: HostSample): (number | null)[] => [
  host.loopDelayMs,
  host.cpuWaitPercent,
  host.throttledPercent,
  host.memoryPercent,
];

export function hostFromRow(row: (number | null)[]): HostSample {
  const [loopDelayMs, cpuWaitPercent = null, throttledPercent = null, memoryPercent = null] = row;
  return { loopDelayMs: loopDelayMs ?? 0, cpuWaitPercent, throttledPercent, memoryPercent };
}
