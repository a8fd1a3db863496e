import type { HostSample, LegSample } from '@cde/api/diagnosis.ts';
import { noticeableMs } from '@cde/api/diagnosis-values.ts';

/** A stretch of a session: a window of ten seconds, a minute or an hour. */
export interface Stretch {
  at: Date;
  /** The time that was recorded. */
  ms: number;
  /** How much of it had noticeably late answers. */
  slowMs: number;
  path: { kind: string; via: string } | null;
  region: string | null;
  toSatellite: LegSample | null;
  satelliteToAgent: LegSample | null;
  toAgent: LegSample | null;
  bytes: number;
  host: HostSample;
}

/** All of a window counts as slow if one round trip in twenty took this long. */
export const slowMsOf = (ms: number, toAgent: LegSample | null): number =>
  toAgent !== null && toAgent.p95 >= noticeableMs ? ms : 0;

/** Merges stretches into those of `unitMs`, oldest first. The stretches are in order. */
export function mergeStretches(stretches: readonly Stretch[], unitMs: number): Stretch[] {
  const merged: Stretch[] = [];
  for (let from = 0; from < stretches.length; ) {
    const at = Math.floor(stretches[from]!.at.getTime() / unitMs) * unitMs;
    let to = from + 1;
    while (to < stretches.length && stretches[to]!.at.getTime() < at + unitMs) to++;
    merged.push(mergeAll(new Date(at), stretches.slice(from, to)));
    from = to;
  }
  return merged;
}

function mergeAll(at: Date, parts: readonly Stretch[]): Stretch {
  const sum = (of: (part: Stretch) => number) => parts.reduce((all, part) => all + of(part), 0);
  const leg = (of: (part: Stretch) => LegSample | null) => mergeLegs(parts.flatMap((part) => of(part) ?? []));
  const longest = longestPath(parts);
  return {
    at,
    ms: sum(({ ms }) => ms),
    slowMs: sum(({ slowMs }) => slowMs),
    path: longest?.path ?? null,
    region: longest?.region ?? null,
    toSatellite: leg(({ toSatellite }) => toSatellite),
    satelliteToAgent: leg(({ satelliteToAgent }) => satelliteToAgent),
    toAgent: leg(({ toAgent }) => toAgent),
    bytes: sum(({ bytes }) => bytes),
    host: {
      loopDelayMs: Math.max(...parts.map(({ host }) => host.loopDelayMs)),
      cpuWaitPercent: mean(parts, ({ cpuWaitPercent }) => cpuWaitPercent),
      throttledPercent: mean(parts, ({ throttledPercent }) => throttledPercent),
      memoryPercent: highest(parts.map(({ host }) => host.memoryPercent)),
    },
  };
}

/** The path that was used for the most time. */
function longestPath(parts: readonly Stretch[]): Stretch | undefined {
  const times = new Map<string, { part: Stretch; ms: number }>();
  for (const part of parts) {
    const key = part.path ? `${part.path.kind} ${part.path.via}` : '';
    const known = times.get(key) ?? { part, ms: 0 };
    times.set(key, { ...known, ms: known.ms + part.ms });
  }
  return [...times.values()].reduce((one, other) => (other.ms > one.ms ? other : one)).part;
}

/** By time; null if it was never measured. */
function mean(parts: readonly Stretch[], of: (host: HostSample) => number | null): number | null {
  let [all, time] = [0, 0];
  for (const { host, ms } of parts) {
    const value = of(host);
    if (value === null) continue;
    all += value * ms;
    time += ms;
  }
  return time === 0 ? null : all / time;
}

function highest(values: readonly (number | null)[]): number | null {
  const known = values.filter((value) => value !== null);
  return known.length === 0 ? null : Math.max(...known);
}

/**
 * Merges what is known of round trips. Their times are gone, so p50 and p95 are estimates: p50 is the median of the medians,
 * weighted by the number of round trips; for p95, the slower half of each sample is taken to be spread evenly from p50 to
 * p95 and from p95 to the maximum. The maximum and the counts are exact.
 */
export function mergeLegs(samples: readonly LegSample[]): LegSample | null {
  const [first] = samples;
  if (first === undefined || samples.length === 1) return first ?? null;
  const max = Math.max(...samples.map((sample) => sample.max));
  const count = samples.reduce((all, sample) => all + sample.count, 0);
  const p50 = weightedMedian(samples, count / 2);
  const p95 = lateTail(samples, count * tailShare, max);
  return {
    p50,
    p95: Math.min(max, Math.max(p50, p95)),
    max,
    count,
    unanswered: samples.reduce((all, sample) => all + sample.unanswered, 0),
  };
}

/** Above p95. */
const tailShare = 0.05;

function weightedMedian(samples: readonly LegSample[], half: number): number {
  let seen = 0;
  for (const { p50, count } of [...samples].sort((one, other) => one.p50 - other.p50)) {
    seen += count;
    if (seen >= half) return p50;
  }
  return samples.at(-1)!.p50;
}

/** The round trip time that only `allowed` round trips exceeded, to a hundredth of a millisecond. */
function lateTail(samples: readonly LegSample[], allowed: number, max: number): number {
  let [low, high] = [Math.min(...samples.map(({ p95 }) => p95)), max];
  while (high - low > 0.005) {
    const middle = (low + high) / 2;
    const above = samples.reduce((all, sample) => all + sample.count * shareAbove(sample, middle), 0);
    if (above > allowed * (1 + 1e-9)) low = middle;
    else high = middle;
  }
  return Math.round(high * 100) / 100;
}

function shareAbove({ p50, p95, max }: LegSample, time: number): number {
  if (time >= max) return 0;
  if (time >= p95) return (tailShare * (max - time)) / (max - p95);
  if (time >= p50) return tailShare + ((0.5 - tailShare) * (p95 - time)) / (p95 - p50);
  return 1;
}
