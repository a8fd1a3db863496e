import { randomUUID } from 'node:crypto';
import type { StopCause } from '@cde/api/activity.ts';
import { spanText } from '@cde/api/idle-text.ts';
import { isPostponable, longestWarningMs } from '@cde/api/stop-warnings.ts';
import { sql } from 'drizzle-orm';
import type { PendingStop, StoredDecision } from '../database/idle-schema.ts';
import type { Logger } from '../log.ts';
import {
  type ActivityChange,
  type ActivityRow,
  insertEvents,
  lockActivity,
  type NewEvent,
  readActivity,
  writeDecisions,
} from './activity-store.ts';
import { type Evaluated, reportGraceMs } from './evaluate.ts';
import type { StopSection } from './policy-source.ts';
import { decisionChange, evaluateRow, type IdleDeps, warningsFor } from './reports.ts';
import { vetoEvent, whyStopped } from './sentences.ts';

export interface SweepResult {
  /** Stops that were decided, and wait for the agent or have been requested. */
  stops: number;
  held: number;
  waiting: number;
  warned: number;
  started: number;
}

export interface StopRequest {
  workspaceId: string;
  cause: StopCause;
  reason: string;
  /** Activity until the stop begins cancels it. */
  isIdleStop: boolean;
}

type RowDecision = Awaited<ReturnType<typeof evaluateRow>>;

/** How many workspaces are read, and locked, at a time. */
const pageSize = 500;
/** As `warned_ms`: the timeline says already that the report is missing. */
const missingNoted = 0;
const isRunning = sql`w.status = 'running' AND w.agent_build_id = a.build_id`;
/** The brake counts stops within this long. */
const brakeWindowMs = 10 * 60_000;
/** So few stops are never too many. */
const brakeMin = 5;
/** How long the agent has to answer beyond the time of its shutdown script. */
const answerMs = 60_000;

/**
 * Finds the workspaces that are due to stop or to start, and acts: it asks agents to prepare for the stop of an idle workspace,
 * and requests the stop of one whose run time is over. One replica at a time. What it costs follows what is due, not what exists.
 */
export function makeIdleSweep(
  deps: IdleDeps & {
    log: Logger;
    requestStop: (request: StopRequest) => Promise<void>;
  },
) {
  const { database, bus, now, log } = deps;
  let loggedHeld = 0;

  async function allowedStops(at: number): Promise<number> {
    const { brakePercent } = await deps.bounds();
    const { rows } = await database.db.execute<{
      running: number;
      decided: number;
      counted: number;
      pending: number;
    }>(sql`
      SELECT (SELECT count(*)::int FROM workspaces WHERE status = 'running') AS running, decided, counted,
             (SELECT count(*)::int FROM workspace_activity a JOIN workspaces w ON w.id = a.workspace_id
               WHERE a.pending_stop IS NOT NULL AND NOT a.pending_stop ? 'releasedBy' AND w.status = 'running') AS pending
        FROM (SELECT count(*)::int AS decided,
                     -- The brake does not hold back the others, and an admin has allowed those that have a name.
                     (count(*) FILTER (WHERE cause <> 'max-run' AND by IS NULL))::int AS counted
                FROM activity_events
               WHERE kind = 'stop-decided' AND at > to_timestamp(${at - brakeWindowMs} / 1000.0::float8)) AS recent`);
    const { running, decided, counted, pending } = rows[0]!;
    // Of those that ran when the window began.
    const share = Math.ceil(((running + decided) * brakePercent) / 100);
    return Math.max(brakeMin, share) - counted - pending;
  }

  /** The warning that is due and has not been given. */
  function dueWarning(row: ActivityRow, { evaluated, effective }: RowDecision, at: number): number | null {
    const { stored, kind } = evaluated;
    if (kind !== 'awake' || stored.stopsAt === null) return null;
    const due = warningsFor(effective, stored.cause)
      .filter((ms) => stored.stopsAt! - at <= ms)
      .at(-1);
    return due !== undefined && (row.warnedMs === null || row.warnedMs > due) ? due : null;
  }

  function stopChange(
    cause: StopCause,
    because: StoredDecision['because'],
    at: number,
    releasedBy?: string,
  ): ActivityChange {
    const idleSince = Date.parse(because.at);
    return {
      held: false,
      pendingStop: {
        id: randomUUID(),
        cause,
        decidedAt: at,
        idleSince,
        ready: false,
        ...(releasedBy !== undefined && { releasedBy }),
      },
    };
  }

  /** Whether there is anything to do, as far as the rows say that one query has read for all. */
  function needsAction(row: ActivityRow, decision: RowDecision, budget: number, at: number): boolean {
    const { evaluated, shutdown } = decision;
    if (Object.keys(decisionChange(row, evaluated)).length > 0) return true;
    if (row.pendingStop) return row.pendingStop.ready || isUnanswered(row.pendingStop, shutdown, at);
    if (evaluated.kind === 'awake') return dueWarning(row, decision, at) !== null;
    if (evaluated.kind === 'needs-report') return row.warnedMs !== missingNoted;
    return !row.held || budget > 0;
  }

  /** What one workspace needs, with all that is known of it under its row's lock. */
  async function planFor(
    row: ActivityRow,
    at: number,
    budget: { left: number },
    result: SweepResult,
  ): Promise<{ change: ActivityChange; events: NewEvent[]; request: StopRequest | null }> {
    const { workspaceId, pendingStop } = row;
    const decision = await evaluateRow(deps, row, at);
    const { evaluated, shutdown } = decision;
    const change = decisionChange(row, evaluated);
    const events: NewEvent[] = [];
    let request: StopRequest | null = null;
    if (pendingStop?.ready && evaluated.kind === 'awake') {
      change.pendingStop = null;
      events.push(vetoEvent(row, pendingStop.cause, evaluated.stored.because, at));
    } else if (pendingStop?.ready) {
      // The build was to follow, and its request failed or was lost with the replica.
      request = { ...stopOf(row, pendingStop.cause, evaluated, at), isIdleStop: true };
    } else if (pendingStop) {
      // The agent did not answer: it may be away, and what it knows is needed. Once it reports, the stop is decided again.
      if (isUnanswered(pendingStop, shutdown, at)) {
        change.pendingStop = null;
        events.push(missingEvent(row, pendingStop.cause, at));
      }
    } else if (evaluated.kind === 'stop' && !isPostponable(evaluated.cause)) {
      request = { ...stopOf(row, evaluated.cause, evaluated, at), isIdleStop: false };
      events.push({
        workspaceId,
        at,
        kind: 'stop-decided',
        cause: evaluated.cause,
        text: `will be ${request.reason}`,
      });
      result.stops++;
    } else if (evaluated.kind === 'stop' && budget.left > 0) {
      budget.left--;
      Object.assign(change, stopChange(evaluated.cause, evaluated.stored.because, at));
      result.stops++;
    } else if (evaluated.kind === 'stop') {
      if (!row.held) {
        change.held = true;
        events.push(heldEvent(row, evaluated.cause, at));
      }
    } else if (evaluated.kind === 'needs-report') {
      const isLate = at > (evaluated.stored.stopsAt ?? at) + reportGraceMs;
      if (isLate && row.warnedMs !== missingNoted) {
        change.warnedMs = missingNoted;
        events.push(missingEvent(row, evaluated.stored.cause ?? 'idle', at));
      }
    } else {
      const warning = dueWarning(row, decision, at);
      if (warning !== null) {
        change.warnedMs = warning;
        events.push(warningEvent(row, evaluated, at));
        result.warned++;
      }
    }
    return { change, events, request };
  }

  /** Acts on workspaces under their rows' locks, with what is known then: activity since the query wins. */
  async function act(
    workspaceIds: readonly string[],
    budget: { left: number },
    result: SweepResult,
  ): Promise<void> {
    const requests: StopRequest[] = [];
    const changed: string[] = [];
    await database.db.transaction(async (tx) => {
      await lockActivity(tx, workspaceIds);
      const rows = await readActivity(
        tx,
        sql`WHERE w.id = ANY(${sql.param(workspaceIds)}::uuid[]) AND ${isRunning} ORDER BY a.stops_at`,
      );
      const at = now().getTime();
      const changes = new Map<ActivityRow, ActivityChange>();
      const events: NewEvent[] = [];
      for (const row of rows) {
        const plan = await planFor(row, at, budget, result);
        if (Object.keys(plan.change).length > 0) {
          changes.set(row, plan.change);
          changed.push(row.workspaceId);
        }
        events.push(...plan.events);
        if (plan.request) requests.push(plan.request);
      }
      await writeDecisions(tx, changes);
      await insertEvents(tx, events);
    });
    for (const workspaceId of changed) bus.publish({ workspaceId });
    for (const request of requests) await deps.requestStop(request);
  }

  /**
   * A page of the workspaces that stop within the longest warning. Not those that only wait for a report, or for an admin: after
   * an outage they may be many, and nothing changes for them.
   */
  function duePage(until: number, after: string, budget: number): Promise<ActivityRow[]> {
    return readActivity(
      database.db,
      sql`WHERE a.stops_at <= to_timestamp(${until} / 1000.0::float8) AND ${isRunning}
            AND NOT (a.warned_ms IS NOT DISTINCT FROM ${missingNoted}::int AND coalesce(a.reported_at < a.stops_at, true))
            AND NOT (a.held AND ${budget} <= 0 AND a.decision ->> 'cause' IS DISTINCT FROM 'max-run')
            AND w.id > ${after}
          ORDER BY w.id LIMIT ${pageSize}`,
    );
  }

  async function* heldPages(): AsyncGenerator<string[]> {
    for (let after = '00000000-0000-0000-0000-000000000000'; ; ) {
      const page = await readActivity(
        database.db,
        sql`WHERE a.held AND ${isRunning} AND w.id > ${after} ORDER BY w.id LIMIT ${pageSize}`,
      );
      if (page.length > 0) yield page.map(({ workspaceId }) => workspaceId);
      if (page.length < pageSize) return;
      after = page.at(-1)!.workspaceId;
    }
  }

  /** Decides again under the rows' locks: a workspace that is in use by now stays. */
  async function releasePage(
    workspaceIds: readonly string[],
    by: string,
  ): Promise<Map<ActivityRow, ActivityChange>> {
    const changes = new Map<ActivityRow, ActivityChange>();
    await database.db.transaction(async (tx) => {
      await lockActivity(tx, workspaceIds);
      const held = await readActivity(
        tx,
        sql`WHERE w.id = ANY(${sql.param(workspaceIds)}::uuid[]) AND a.held AND ${isRunning}`,
      );
      const at = now().getTime();
      for (const row of held) {
        const { evaluated } = await evaluateRow(deps, row, at);
        const { cause, because } = evaluated.stored;
        changes.set(row, {
          ...decisionChange(row, evaluated),
          ...(evaluated.kind !== 'awake' && stopChange(cause ?? 'idle', because, at, by)),
        });
      }
      await writeDecisions(tx, changes);
    });
    return changes;
  }

  async function countBlocked(at: number): Promise<{ held: number; waiting: number }> {
    const { rows } = await database.db.execute<{ held: number; waiting: number }>(sql`
      SELECT count(*) FILTER (WHERE a.held)::int AS held,
             count(*) FILTER (WHERE NOT a.held AND a.pending_stop IS NULL)::int AS waiting
        FROM workspace_activity a JOIN workspaces w ON w.id = a.workspace_id
       WHERE a.stops_at <= to_timestamp(${at - reportGraceMs} / 1000.0::float8) AND ${isRunning}`);
    return rows[0]!;
  }

  return {
    /** One sweep. The caller holds the lock of the sweep. */
    async runOnce(): Promise<SweepResult> {
      const result: SweepResult = { stops: 0, held: 0, waiting: 0, warned: 0, started: 0 };
      const at = now().getTime();
      const budget = { left: await allowedStops(at) };
      for (let after = '00000000-0000-0000-0000-000000000000'; ; ) {
        const page = await duePage(at + longestWarningMs, after, budget.left);
        const needing: string[] = [];
        for (const row of page) {
          if (needsAction(row, await evaluateRow(deps, row, at), budget.left, at))
            needing.push(row.workspaceId);
        }
        if (needing.length > 0) await act(needing, budget, result);
        if (page.length < pageSize) break;
        after = page.at(-1)!.workspaceId;
      }
      Object.assign(result, await countBlocked(at));
      if (result.held > loggedHeld)
        log.warn(
          { held: result.held },
          'the brake of cleanup holds back workspaces; `cde cleanup release` lets them stop now',
        );
      loggedHeld = result.held;
      return result;
    },

    /** Lets the stops go ahead that the brake holds back. Returns how many. Their agents can still veto. */
    async release(by: string): Promise<number> {
      let released = 0;
      for await (const workspaceIds of heldPages())
        for (const [{ workspaceId }, { pendingStop }] of await releasePage(workspaceIds, by)) {
          if (pendingStop) released++;
          bus.publish({ workspaceId });
        }
      return released;
    },
  };
}

export type IdleSweep = ReturnType<typeof makeIdleSweep>;

const isUnanswered = (pending: PendingStop, shutdown: StopSection['shutdown'], at: number) =>
  at > pending.decidedAt + (shutdown?.timeoutMs ?? 0) + answerMs;

function stopOf(row: ActivityRow, cause: StopCause, { stored }: Evaluated, at: number) {
  return { workspaceId: row.workspaceId, cause, reason: `stopped ${whyStopped(stored.because, cause, at)}` };
}

const missingEvent = ({ workspaceId }: ActivityRow, cause: StopCause, at: number): NewEvent => ({
  workspaceId,
  at,
  kind: 'report-missing',
  cause,
  text: 'is due to stop, but its agent has not reported since: missing data is not idleness',
});
const heldEvent = ({ workspaceId }: ActivityRow, cause: StopCause, at: number): NewEvent => ({
  workspaceId,
  at,
  kind: 'stop-held',
  cause,
  text: 'is due to stop, and waits because many workspaces are: it stops some minutes later, or once an admin allows it',
});
const warningEvent = (row: ActivityRow, { stored }: Evaluated, at: number): NewEvent => ({
  workspaceId: row.workspaceId,
  at,
  kind: 'warned',
  ...(stored.cause && { cause: stored.cause }),
  text: `stops in ${spanText(Math.max(60_000, stored.stopsAt! - at))}`,
});
