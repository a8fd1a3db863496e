import type { AwakeCause, IdleState, StopCause } from '@cde/api/activity.ts';
import { isPostponable } from '@cde/api/stop-warnings.ts';
import type { StoredDecision } from '../database/idle-schema.ts';
import type { ActivityRow } from './activity-store.ts';
import { type Cause, type Decision, decide, type IdlePolicy, type Observations } from './policy.ts';

export type Evaluated =
  | { kind: 'awake'; stored: StoredDecision }
  /** Due as far as is known, but there is no report that covers the moment when it became due. */
  | { kind: 'needs-report'; stored: StoredDecision }
  | { kind: 'stop'; cause: StopCause; stored: StoredDecision };

/** What the policy decides on. Idleness begins no earlier than the agent's start, since nothing before it is known. */
function observationsOf(row: ActivityRow, dormantAt: number | null, now: number): Observations {
  return {
    startedAt: row.agentStartedAt ?? now,
    ...(row.runStartedAt !== null && { runStartedAt: row.runStartedAt }),
    latest: row.signals,
    leases: row.leases,
    dormantAt,
    reportedUntil: row.reportedAt ?? 0,
  };
}

/**
 * Asks the policy, and words the answer for those who read. A workspace is due once the latest report covers the moment of
 * its stop; what has happened since that report, the agent knows, and it vetoes the stop.
 */
export function evaluate(
  policy: IdlePolicy,
  row: ActivityRow,
  dormantAt: number | null,
  now: number,
): Evaluated {
  const observed = observationsOf(row, dormantAt, now);
  // As if everything were known: when it stops unless there is more.
  const complete = { ...observed, reportedUntil: Number.POSITIVE_INFINITY };
  const decision = decide(policy, complete, now);
  const isDue = decision.kind === 'stop';
  const { because, stopsAt, cause } = ahead(isDue ? decide(policy, complete, observed.startedAt) : decision);
  const stored = { because: toAwakeCause(because), stopsAt, cause };
  if (!isDue) return { kind: 'awake', stored };
  if (!isPostponable(decision.policy)) return { kind: 'stop', cause: decision.policy, stored };
  const isCovered = decide(policy, observed, observed.reportedUntil).kind === 'stop';
  return isCovered ? { kind: 'stop', cause: decision.policy, stored } : { kind: 'needs-report', stored };
}

/** A decision at the very start is a stop only if the period has no length. */
function ahead(decision: Decision): { because: Cause; stopsAt: number | null; cause: StopCause | null } {
  if (decision.kind === 'awake') {
    const { because, stopsAt, policy } = decision;
    return { because, stopsAt, cause: policy };
  }
  if (decision.kind === 'stop')
    return { because: decision.because, stopsAt: decision.because.at, cause: decision.policy };
  throw new Error('a decision with complete reports needs none');
}

function toAwakeCause(cause: Cause): AwakeCause {
  return { ...cause, at: new Date(cause.at).toISOString() };
}

/** What readers see of a stored decision. */
export function stateOf(
  row: Pick<ActivityRow, 'decision' | 'pendingStop' | 'held'>,
  now: number,
): IdleState | null {
  const { decision } = row;
  if (!decision) return null;
  const { stopsAt } = decision;
  return {
    awakeBecause: decision.because,
    stopsAt: stopsAt === null ? null : new Date(stopsAt).toISOString(),
    cause: decision.cause,
    waitsForReport:
      isPostponable(decision.cause) &&
      stopsAt !== null &&
      now > stopsAt + reportGraceMs &&
      !row.held &&
      !row.pendingStop,
    held: row.held,
  };
}

/** The agent reports when the stop is due, and the sweep acts on it some seconds later. */
export const reportGraceMs = 60_000;
