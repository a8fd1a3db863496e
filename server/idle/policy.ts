import { type Signal, signals } from '@cde/api/activity.ts';
import type { Lease, Occurrence } from './observations.ts';

/** When a workspace stops. Set by its template, within the bounds of the installation. Times in ms; null: never. */
export interface IdlePolicy {
  /** Stop after this long without any activity. */
  stopAfterIdleMs: number | null;
  /** Stop this long after the start, whatever happens in it. */
  maxRunMs: number | null;
  /** Do not stop for idleness until then. Has an owner and a reason, because it is how idle workspaces stay forever. */
  neverStop: { until: number; by: string; reason: string } | null;
}

/** What is known about a running workspace. */
export interface Observations {
  /** When it, or its agent, last started: nothing that happened before is known. */
  startedAt: number;
  latest: Partial<Record<Signal, Occurrence>>;
  leases: readonly Lease[];
  /** The agent has reported everything that happened until then. */
  reportedUntil: number;
}

/** Why a workspace is awake, or was until it became idle. */
export type Cause =
  | { kind: 'signal'; signal: Signal; at: number; by?: string }
  | { kind: 'lease'; id: string; at: number; by: string }
  | { kind: 'start'; at: number }
  | { kind: 'never-stop'; at: number; by: string; reason: string };

export type Decision =
  /** `stopsAt`: when `policy` stops it unless there is more activity; null if nothing does. */
  | { kind: 'awake'; because: Cause; stopsAt: number | null; policy: 'idle' | 'max-run' | null }
  /** Idle as far as is known. Stop it once the agent has reported everything until now and the decision is still the same. */
  | { kind: 'needs-report'; reportedUntil: number }
  | { kind: 'stop'; policy: 'idle' | 'max-run'; because: Cause };

/**
 * Decides whether a workspace stops now. A pure function: the sweep calls it, and again with the agent's answer before it stops
 * anything; everything that shows "stops at" calls it as well, so they cannot disagree.
 */
export function decide(policy: IdlePolicy, observed: Observations, now: number): Decision {
  const because = latestCause(policy, observed);
  const runEndsAt = policy.maxRunMs === null ? null : observed.startedAt + policy.maxRunMs;
  if (runEndsAt !== null && now >= runEndsAt) return { kind: 'stop', policy: 'max-run', because };
  const idleStopAt = policy.stopAfterIdleMs === null ? null : because.at + policy.stopAfterIdleMs;
  if (idleStopAt !== null && now >= idleStopAt) {
    // Missing data is not idleness. A keystroke since the last report must win, and so must an hour of work during an outage.
    if (observed.reportedUntil < now) return { kind: 'needs-report', reportedUntil: observed.reportedUntil };
    return { kind: 'stop', policy: 'idle', because };
  }
  if (idleStopAt === null && runEndsAt === null)
    return { kind: 'awake', because, stopsAt: null, policy: null };
  return idleStopAt !== null && (runEndsAt === null || idleStopAt <= runEndsAt)
    ? { kind: 'awake', because, stopsAt: idleStopAt, policy: 'idle' }
    : { kind: 'awake', because, stopsAt: runEndsAt, policy: 'max-run' };
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
