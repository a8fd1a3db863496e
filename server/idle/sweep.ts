import { randomUUID } from 'node:crypto';
import type { StopCause } from '@cde/api/activity.ts';
import { sql } from 'drizzle-orm';
import type { PendingStop } from '../database/idle-schema.ts';
import type { Logger } from '../log.ts';
import {
  type ActivityChange,
  type ActivityRow,
  insertEvents,
  type NewEvent,
  readActivity,
  writeActivity,
} from './activity-store.ts';
import { type Evaluated, reportGraceMs } from './evaluate.ts';
import type { StopSection } from './policy-source.ts';
import { decisionChange, evaluateRow, type IdleDeps, warnBeforeMs } from './reports.ts';
import { stopReason } from './sentences.ts';

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

/** How many workspaces one sweep looks at; the next one follows at once if there are more. */
const batchSize = 500;
/** The brake counts stops within this long. */
export const brakeWindowMs = 10 * 60_000;
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
    onWarning?: (row: ActivityRow, event: NewEvent) => void;
  },
) {
  const { database, bus, now, log } = deps;

  async function allowedStops(at: number): Promise<number> {
    const { brakePercent } = await deps.bounds();
    const { rows } = await database.db.execute<{ running: number; decided: number; pending: number }>(sql`
      SELECT (SELECT count(*)::int FROM workspaces WHERE status = 'running') AS running,
             (SELECT count(*)::int FROM activity_events
               WHERE kind = 'stop-decided' AND at > to_timestamp(${at - brakeWindowMs} / 1000.0::float8)) AS decided,
             (SELECT count(*)::int FROM workspace_activity a JOIN workspaces w ON w.id = a.workspace_id
               WHERE a.pending_stop IS NOT NULL AND w.status = 'running') AS pending`);
    const { running, decided, pending } = rows[0]!;
    // Of those that ran when the window began.
    const share = Math.ceil(((running + decided) * brakePercent) / 100);
    return Math.max(brakeMin, share) - decided - pending;
  }

  /** The warning that is due and has not been given. */
  function dueWarning(row: ActivityRow, { stored, kind }: Evaluated, at: number): number | null {
    if (kind !== 'awake' || stored.stopsAt === null) return null;
    const due = warnBeforeMs.filter((ms) => stored.stopsAt! - at <= ms).at(-1);
    return due !== undefined && (row.warnedMs === null || row.warnedMs > due) ? due : null;
  }

  function stopChange(row: ActivityRow, cause: StopCause, at: number): ActivityChange {
    return {
      held: false,
      pendingStop: { id: randomUUID(), cause, decidedAt: at, idleSince: row.reportedAt ?? at, ready: false },
    };
  }

  /** Whether there is anything to do, as far as the rows say that one query has read for all. */
  function needsAction(
    row: ActivityRow,
    evaluated: Evaluated,
    shutdown: StopSection['shutdown'],
    budget: number,
    at: number,
  ): boolean {
    if (Object.keys(decisionChange(row, evaluated)).length > 0) return true;
    if (row.pendingStop) return row.pendingStop.ready || isUnanswered(row.pendingStop, shutdown, at);
    if (evaluated.kind === 'awake') return dueWarning(row, evaluated, at) !== null;
    if (evaluated.kind === 'needs-report') return row.warnedMs !== 0;
    return !row.held || budget > 0;
  }

  /** Acts on one workspace under its row's lock, with what is known then: activity since the query wins. */
  async function act(workspaceId: string, budget: { left: number }, result: SweepResult): Promise<void> {
    let request: StopRequest | null = null;
    await database.db.transaction(async (tx) => {
      await tx.execute(sql`SELECT 1 FROM workspace_activity WHERE workspace_id = ${workspaceId} FOR UPDATE`);
      const [row] = await readActivity(
        tx,
        sql`WHERE w.id = ${workspaceId} AND w.status = 'running' AND w.agent_build_id = a.build_id`,
      );
      if (!row) return;
      const at = now().getTime();
      const { evaluated, shutdown } = await evaluateRow(deps, row, at);
      const change = decisionChange(row, evaluated);
      const events: NewEvent[] = [];
      const { pendingStop } = row;
      if (pendingStop) {
        // The agent did not answer: it may be away, and what it knows is needed. Once it reports, the stop is decided again.
        // The build was to follow, and its request failed or was lost with the replica.
        if (pendingStop.ready)
          request = { ...stopOf(row, pendingStop.cause, evaluated, at), isIdleStop: true };
        else if (isUnanswered(pendingStop, shutdown, at)) {
          change.pendingStop = null;
          events.push(missingEvent(row, pendingStop.cause, at));
        }
      } else if (evaluated.kind === 'stop' && evaluated.cause === 'max-run') {
        request = { ...stopOf(row, 'max-run', evaluated, at), isIdleStop: false };
        events.push({ workspaceId, at, kind: 'stop-decided', cause: 'max-run', text: request.reason });
        result.stops++;
      } else if (evaluated.kind === 'stop') {
        if (budget.left > 0) {
          budget.left--;
          Object.assign(change, stopChange(row, evaluated.cause, at));
          result.stops++;
        } else {
          result.held++;
          if (!row.held) {
            change.held = true;
            events.push(heldEvent(row, evaluated.cause, at));
          }
        }
      } else if (evaluated.kind === 'needs-report') {
        result.waiting++;
        const isLate = at > (evaluated.stored.stopsAt ?? at) + reportGraceMs;
        // `warned_ms` 0: the missing report is in the timeline.
        if (isLate && row.warnedMs !== 0) {
          change.warnedMs = 0;
          events.push(missingEvent(row, evaluated.stored.cause ?? 'idle', at));
        }
      } else {
        const warning = dueWarning(row, evaluated, at);
        if (warning !== null) {
          change.warnedMs = warning;
          const event = warningEvent(row, evaluated, at);
          events.push(event);
          result.warned++;
          deps.onWarning?.(row, event);
        }
      }
      await writeActivity(tx, workspaceId, change);
      await insertEvents(tx, events);
      if (Object.keys(change).length > 0) bus.publish({ workspaceId });
    });
    if (request) await deps.requestStop(request);
  }

  return {
    /** One sweep. The caller holds the lock of the sweep. */
    async runOnce(): Promise<SweepResult> {
      const result: SweepResult = { stops: 0, held: 0, waiting: 0, warned: 0, started: 0 };
      const at = now().getTime();
      const soon = at + warnBeforeMs[0]!;
      const due = await readActivity(
        database.db,
        sql`WHERE a.stops_at <= to_timestamp(${soon} / 1000.0::float8) AND w.status = 'running'
              AND w.agent_build_id = a.build_id ORDER BY a.stops_at LIMIT ${batchSize}`,
      );
      if (due.length === 0) return result;
      const budget = { left: await allowedStops(at) };
      for (const row of due) {
        const { evaluated, shutdown } = await evaluateRow(deps, row, at);
        if (needsAction(row, evaluated, shutdown, budget.left, at))
          await act(row.workspaceId, budget, result);
        else if (row.held) result.held++;
        else if (evaluated.kind === 'needs-report') result.waiting++;
      }
      if (result.held > 0)
        log.warn(
          { held: result.held },
          'cleanup would stop too many workspaces at once; `cde cleanup release` allows it',
        );
      return result;
    },

    /** Lets the stops go ahead that the brake holds back. Returns how many. Their agents can still veto. */
    async release(): Promise<number> {
      const held = await readActivity(
        database.db,
        sql`WHERE a.held AND w.status = 'running' AND w.agent_build_id = a.build_id LIMIT 10000`,
      );
      const at = now().getTime();
      for (const row of held) {
        await writeActivity(database.db, row.workspaceId, stopChange(row, row.decision?.cause ?? 'idle', at));
        bus.publish({ workspaceId: row.workspaceId });
      }
      return held.length;
    },
  };
}

export type IdleSweep = ReturnType<typeof makeIdleSweep>;

const isUnanswered = (pending: PendingStop, shutdown: StopSection['shutdown'], at: number) =>
  at > pending.decidedAt + (shutdown?.timeoutMs ?? 0) + answerMs;

function stopOf(row: ActivityRow, cause: StopCause, { stored }: Evaluated, at: number) {
  return { workspaceId: row.workspaceId, cause, reason: stopReason(stored.because, cause, at) };
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
  text: 'is due to stop, but too many workspaces would stop at once: an admin has to allow it',
});
const warningEvent = (row: ActivityRow, { stored }: Evaluated, at: number): NewEvent => ({
  workspaceId: row.workspaceId,
  at,
  kind: 'warned',
  ...(stored.cause && { cause: stored.cause }),
  text: `stops in ${Math.max(1, Math.round((stored.stopsAt! - at) / 60_000))} min`,
});
