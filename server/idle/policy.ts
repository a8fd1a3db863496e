import { type Signal, signals } from '@cde/api/activity.ts';
import type { Lease, Occurrence } from './observations.ts';
import type { AfterHoursCalendar } from './schedule.ts';

/** When a workspace stops. Set by its template, within the bounds of the installation. Times in ms; null: never. */
export interface IdlePolicy {
  /** Stop after this long without any activity. */
  stopAfterIdleMs: number | null;
  /** Stop this long after the start, whatever happens in it. */
  maxRunMs: number | null;
  /** No maximum run time ends a run before, so that people are warned after an admin has lowered it. Unix time in ms. */
  maxRunNotBefore?: number;
  /** Do not stop for idleness until then. Has an owner and a reason, because it is how idle workspaces stay forever. */
  neverStop: { until: number; by: string; reason: string } | null;
  /** After its daily stop a workspace is stopped as soon as it has been idle for `afterHoursIdleMs`. */
  schedule: AfterHoursCalendar | null;
}

/**
 * The idle period between the daily stop and the next start. People who still work then pause for up to half an hour; with
 * 15 minutes the benchmark (bench/idle) finds wrong stops.
 */
const afterHoursIdleMs = 30 * 60_000;
/** How long a scheduled start keeps a workspace awake until somebody arrives, as a lease of `schedule`. */
export const scheduledStartLeaseMs = 3600_000;

/** What is known about a running workspace. */
export interface Observations {
  /** When it, or its agent, last started: nothing that happened before is known. */
  startedAt: number;
  /** When the run began, which a restart of the agent does not change. Absent: `startedAt`. */
  runStartedAt?: number;
  latest: Partial<Record<Signal, Occurrence>>;
  leases: readonly Lease[];
  /** When no person has used it for so long that it stops, whatever works in it, to become dormant. Absent or null: never. */
  dormantAt?: number | null;
  /** The agent has reported everything that happened until then. */
  reportedUntil: number;
}

/** Why a workspace is awake, or was until it became idle. */
export type Cause =
  | { kind: 'signal'; signal: Signal; at: number; by?: string }
  | { kind: 'lease'; id: string; at: number; by: string }
  | { kind: 'start'; at: number }
  | { kind: 'never-stop'; at: number; by: string; reason: string };

/** What stops a workspace that runs. */
type StopPolicy = 'idle' | 'max-run' | 'schedule' | 'dormant';

export type Decision =
  /** `stopsAt`: when `policy` stops it unless there is more activity; null if nothing does. */
  | { kind: 'awake'; because: Cause; stopsAt: number | null; policy: StopPolicy | null }
  /** Idle as far as is known. Stop it once the agent has reported everything until now and the decision is still the same. */
  | { kind: 'needs-report'; reportedUntil: number }
  | { kind: 'stop'; policy: StopPolicy; because: Cause };

/**
 * Decides whether a workspace stops now. A pure function: the sweep calls it, and again with the agent's answer before it stops
 * anything; everything that shows "stops at" calls it as well, so they cannot disagree.
 */
export function decide(policy: IdlePolicy, observed: Observations, now: number): Decision {
  const because = latestCause(policy, observed);
  const runEndsAt =
    policy.maxRunMs === null
      ? never
      : Math.max(
          (observed.runStartedAt ?? observed.startedAt) + policy.maxRunMs,
          policy.maxRunNotBefore ?? 0,
        );
  if (now >= runEndsAt) return { kind: 'stop', policy: 'max-run', because };
  const idleAt = policy.stopAfterIdleMs === null ? never : because.at + policy.stopAfterIdleMs;
  const scheduledAt = scheduledStop(policy, because.at, now);
  const dormantAt = observed.dormantAt ?? never;
  const stopsAt = Math.min(idleAt, scheduledAt, dormantAt);
  const idlePolicy = stopsAt === idleAt ? 'idle' : stopsAt === scheduledAt ? 'schedule' : 'dormant';
  if (now >= stopsAt) {
    // Missing data is not idleness. A keystroke since the last report must win, and so must an hour of work during an outage.
    if (observed.reportedUntil < now) return { kind: 'needs-report', reportedUntil: observed.reportedUntil };
    return { kind: 'stop', policy: idlePolicy, because };
  }
  if (stopsAt === never && runEndsAt === never)
    return { kind: 'awake', because, stopsAt: null, policy: null };
  return stopsAt <= runEndsAt
    ? { kind: 'awake', because, stopsAt, policy: idlePolicy }
    : { kind: 'awake', because, stopsAt: runEndsAt, policy: 'max-run' };
}

const never = Number.POSITIVE_INFINITY;

/** The first moment from now on that is after hours and by which it has been idle for long enough. */
function scheduledStop({ schedule, stopAfterIdleMs }: IdlePolicy, activeAt: number, now: number): number {
  if (schedule === null) return never;
  const idleMs = Math.min(afterHoursIdleMs, stopAfterIdleMs ?? never);
  const idleAt = Math.max(activeAt + idleMs, now);
  const hours = schedule.at(idleAt);
  return hours === null ? never : Math.max(hours.from, idleAt);
}

/** The activity that keeps it awake longest. Leases and never-stop count until they expire, and idleness begins then. */
function latestCause(policy: IdlePolicy, observed: Observations): Cause {
  let latest: Cause = { kind: 'start', at: observed.startedAt };
  for (const signal of signals) {
    const seen = observed.latest[signal];
    if (seen && seen.at > latest.at)
      latest = { kind: 'signal', signal, at: seen.at, ...(seen.by !== undefined && { by: seen.by }) };
  }
  for (const { id, expiresAt, by } of observed.leases)
    if (expiresAt > latest.at) latest = { kind: 'lease', id, at: expiresAt, by };
  const { neverStop } = policy;
  if (neverStop && neverStop.until > latest.at)
    latest = { kind: 'never-stop', at: neverStop.until, by: neverStop.by, reason: neverStop.reason };
  return latest;
}
