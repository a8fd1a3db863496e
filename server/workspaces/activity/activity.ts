import {
  type ActivityEvent,
  type IdleChoices,
  signalSources,
  signals,
  type WorkspaceActivity,
} from '@cde/api/activity.ts';
import type { CleanupCandidate } from '@cde/api/cleanup.ts';
import { causeText, stopText } from '@cde/api/idle-text.ts';
import { Problem } from '@cde/api/problem.ts';
import { and, desc, eq, gt, lt, sql } from 'drizzle-orm';
import { v7 } from 'uuid';
import { activityEvents, type StoredDecision, workspaceLeases } from '../../database/idle-schema.ts';
import type { Queryable } from '../../database/pool.ts';
import type { Caller, UserActor } from '../../http/actor.ts';
import { isUuid } from '../../http/cursor.ts';
import { writeAudit } from '../../identity/audit/audit.ts';
import {
  type ActivityRow,
  insertEvents,
  lockActivity,
  readActivity,
  targetOf,
  toIso,
  writeActivity,
} from '../../idle/activity-store.ts';
import { boundedUntil } from '../../idle/effective.ts';
import { stateOf } from '../../idle/evaluate.ts';
import { recordPersonsUse } from '../../idle/lifecycle.ts';
import { decisionChange, defaultPolicy, evaluateRow, type IdleDeps } from '../../idle/reports.ts';
import { signalEvent } from '../../idle/sentences.ts';
import { lockWorkspace } from '../store.ts';
import type { Dormancy } from '../unused/dormancy.ts';
import type { UnusedSweep } from '../unused/unused.ts';
import { makeLeases, toLease } from './leases.ts';

/** How many workspaces that no person uses a preview lists. */
const maxUnusedListed = 1_000;

/** What people read and choose about the activity of a workspace. */
export function makeWorkspaceActivity(
  deps: IdleDeps & {
    nextStart: (row: ActivityRow) => Promise<number | null>;
    dormancy: Pick<Dormancy, 'findDue'>;
    unused: Pick<UnusedSweep, 'findDue'>;
  },
) {
  const { database, bus, now } = deps;
  const { db } = database;

  async function read(workspaceId: string, tx: Queryable = db): Promise<ActivityRow> {
    const [row] = await readActivity(tx, sql`WHERE w.id = ${workspaceId}`);
    if (!row) throw new Problem('workspace-not-found', 'This workspace no longer exists.');
    return row;
  }

  /** Decides again after a change, so that readers and the agent see its effect at once. */
  async function decideAgain(workspaceId: string): Promise<StoredDecision | null> {
    // Into the caches, so that the transaction does not wait for a second connection of the pool.
    await deps.stopSection((await read(workspaceId)).templateVersionId);
    await deps.bounds();
    const decision = await db.transaction(async (tx): Promise<StoredDecision | null> => {
      await lockActivity(tx, [workspaceId]);
      const row = await read(workspaceId, tx);
      if (row.status === 'stopped')
        await writeActivity(tx, workspaceId, { startsAt: await deps.nextStart(row) });
      if (row.status !== 'running' || row.buildId === null || row.buildId !== row.agentBuildId) return null;
      const { evaluated } = await evaluateRow(deps, row, now().getTime());
      const isVetoed = row.pendingStop && !row.pendingStop.ready && evaluated.kind === 'awake';
      await writeActivity(tx, workspaceId, {
        ...decisionChange(row, evaluated),
        ...(isVetoed && { pendingStop: null }),
      });
      return evaluated.stored;
    });
    bus.publish({ workspaceId });
    return decision;
  }

  /** The days of never-stop count from the choice. One that is kept unchanged is as it was. */
  async function checkNeverStop({ neverStop }: IdleChoices, before: IdleChoices): Promise<void> {
    if (!neverStop || isSameNeverStop(neverStop, before)) return;
    const { maxNeverStopDays: days } = await deps.bounds();
    const latest = boundedUntil(neverStop.until, days, now().getTime());
    if (latest === neverStop.until) return;
    const message = latest === null ? 'is not available here' : `must be at most ${days} days ahead`;
    throw new Problem(
      'bad-request',
      latest === null
        ? 'This installation does not let workspaces run without a stop.'
        : `A workspace can run without a stop for at most ${days} days.`,
      {
        hint: 'An owner of this installation can change the bound.',
        issues: [{ path: 'neverStop.until', message }],
      },
    );
  }

  async function describe(workspaceId: string): Promise<WorkspaceActivity> {
    const row = await read(workspaceId);
    const at = now();
    const { effective } = await evaluateRow(deps, row, at.getTime());
    const leases = await db
      .select()
      .from(workspaceLeases)
      .where(and(eq(workspaceLeases.workspaceId, workspaceId), gt(workspaceLeases.expiresAt, at)))
      .orderBy(workspaceLeases.expiresAt);
    return {
      state: row.status === 'running' ? stateOf(row, at.getTime()) : null,
      policy: effective,
      choices: row.choices,
      defaults: await defaultPolicy(deps, row),
      startsAt: toIso(row.startsAt),
      dormantAt: toIso(row.dormantAt),
      archivedAt: toIso(row.archivedAt),
      deletesAt: toIso(row.deletesAt),
      signals: signals.map((signal) => {
        const last = row.signals[signal];
        return {
          signal,
          source: signalSources[signal],
          lastAt: last ? new Date(last.at).toISOString() : null,
          by: last?.by ?? null,
        };
      }),
      reportedAt: toIso(row.reportedAt),
      leases: leases.map((lease) => toLease(lease, row.decision)),
    };
  }

  return {
    describe,
    ...makeLeases({ database, now, bounds: deps.bounds, read, decideAgain }),

    async choose(
      caller: Caller<UserActor>,
      workspaceId: string,
      choices: IdleChoices,
    ): Promise<WorkspaceActivity> {
      const row = await read(workspaceId);
      const before = row.choices;
      await checkNeverStop(choices, before);
      const isKept = choices.neverStop && isSameNeverStop(choices.neverStop, before);
      const by = isKept ? (row.choicesBy ?? caller.actor.username) : caller.actor.username;
      await db.transaction(async (tx) => {
        await writeActivity(tx, workspaceId, { choices, choicesBy: by });
        await insertEvents(tx, [
          {
            workspaceId,
            at: now().getTime(),
            kind: 'policy-changed',
            by: caller.actor.username,
            text: `${caller.actor.username} changed when it stops and starts`,
          },
        ]);
        await writeAudit(tx, caller, {
          ...targetOf(row),
          action: 'workspace.idle-policy',
          before,
          after: choices,
        });
      });
      await decideAgain(workspaceId);
      return describe(workspaceId);
    },

    /** A person needs it, without starting it. */
    async keep(caller: Caller<UserActor>, workspaceId: string): Promise<WorkspaceActivity> {
      const row = await read(workspaceId);
      const at = now().getTime();
      const { username } = caller.actor;
      await db.transaction(async (tx) => {
        // Not while the sweep decides to delete it.
        const workspace = await lockWorkspace(tx, workspaceId);
        if (workspace?.desired === 'deleted')
          throw new Problem('workspace-deleted', `${workspace.name} is being deleted.`);
        await recordPersonsUse(tx, workspaceId, { by: username, at });
        await insertEvents(tx, [
          { workspaceId, at, kind: 'kept', by: username, text: `kept by ${username}` },
        ]);
        await writeAudit(tx, caller, {
          action: 'workspace.keep',
          ...targetOf(row),
          before: { archivedAt: toIso(row.archivedAt), deletesAt: toIso(row.deletesAt) },
          after: { archivedAt: null, deletesAt: null },
        });
      });
      await decideAgain(workspaceId);
      return describe(workspaceId);
    },

    /** The timeline, newest first. The first page has the current stretch of each signal as well. */
    async events(
      workspaceId: string,
      { limit, after }: { limit: number; after?: string | undefined },
    ): Promise<{ items: ActivityEvent[]; next: string | null }> {
      if (after !== undefined && !isUuid(after))
        throw new Problem('bad-request', 'This `after` is not from a page of events.');
      const rows = await db
        .select()
        .from(activityEvents)
        .where(
          and(
            eq(activityEvents.workspaceId, workspaceId),
            after === undefined ? undefined : lt(activityEvents.id, after),
          ),
        )
        .orderBy(desc(activityEvents.id))
        .limit(limit + 1);
      const stored = rows.slice(0, limit).map(
        ({ workspaceId: _, nodePool: _pool, at, until, ...event }): ActivityEvent => ({
          ...event,
          at: at.toISOString(),
          until: until?.toISOString() ?? null,
        }),
      );
      const next = rows.length > limit ? (stored.at(-1)?.id ?? null) : null;
      if (after !== undefined) return { items: stored, next };
      const { signals: current } = await read(workspaceId);
      const open = signals.flatMap((signal): ActivityEvent[] => {
        const stretch = current[signal];
        if (!stretch) return [];
        const { at, until, text } = signalEvent(workspaceId, { signal, ...stretch });
        return [
          {
            id: v7({ msecs: at }),
            at: new Date(at).toISOString(),
            until: new Date(until!).toISOString(),
            kind: 'signal',
            signal,
            cause: null,
            by: stretch.by ?? null,
            text,
          },
        ];
      });
      const endOf = ({ at, until, kind }: ActivityEvent) => (kind === 'signal' ? (until ?? at) : at);
      const items = [...open, ...stored].sort((a, b) => endOf(b).localeCompare(endOf(a)));
      return { items, next };
    },

    /** What cleanup would do now, and what is due within an hour. */
    async preview({ limit, after }: { limit: number; after?: string | undefined }): Promise<{
      items: CleanupCandidate[];
      next: string | null;
    }> {
      const at = now().getTime();
      const offset = after === undefined ? 0 : Number(after);
      if (!Number.isSafeInteger(offset) || offset < 0)
        throw new Problem('bad-request', 'This `after` is not from a page of this list.');
      const rows = await readActivity(
        db,
        sql`WHERE a.stops_at <= to_timestamp(${at + 3600_000} / 1000.0::float8) AND w.status = 'running'
              AND w.agent_build_id = a.build_id ORDER BY a.stops_at, w.id LIMIT ${limit + 1} OFFSET ${offset}`,
      );
      const items: CleanupCandidate[] = [];
      for (const row of rows.slice(0, limit)) {
        const { evaluated } = await evaluateRow(deps, row, at);
        const { stopsAt, cause } = evaluated.stored;
        if (stopsAt === null || cause === null) continue;
        const action =
          row.held && evaluated.kind === 'stop'
            ? 'hold'
            : evaluated.kind === 'stop'
              ? 'stop'
              : evaluated.kind === 'needs-report'
                ? 'wait-for-report'
                : 'warn';
        items.push({
          workspaceId: row.workspaceId,
          workspace: row.ref,
          template: row.template,
          action,
          cause,
          at: new Date(stopsAt).toISOString(),
          text: candidateText(evaluated.stored, action, at),
        });
      }
      if (rows.length > limit) return { items, next: String(offset + limit) };
      for await (const { row, reason } of deps.dormancy.findDue()) {
        items.push({
          workspaceId: row.workspaceId,
          workspace: row.ref,
          template: row.template,
          action: 'make-dormant',
          cause: 'dormant',
          at: new Date(at).toISOString(),
          text: reason,
        });
        // More than one page at once would be no use to a reader.
        if (items.length >= limit + maxUnusedListed) break;
      }
      for await (const { row, action, at: dueAt, text } of deps.unused.findDue()) {
        if (items.length >= limit + maxUnusedListed) break;
        items.push({
          workspaceId: row.workspaceId,
          workspace: row.ref,
          template: row.template,
          action,
          cause: action === 'archive' ? 'archive' : 'delete',
          at: new Date(dueAt).toISOString(),
          text,
        });
      }
      return { items, next: null };
    },
  };
}

const isSameNeverStop = (neverStop: NonNullable<IdleChoices['neverStop']>, before: IdleChoices) =>
  before.neverStop?.until === neverStop.until && before.neverStop.reason === neverStop.reason;

/** Why, without a time of day: readers are in other time zones. */
function candidateText(decision: StoredDecision, action: CleanupCandidate['action'], at: number): string {
  const state = stateOf({ decision, pendingStop: null, held: action === 'hold' }, at)!;
  if (action === 'hold' || action === 'wait-for-report')
    return stopText({ ...state, waitsForReport: action === 'wait-for-report' }, at);
  if (decision.cause === 'max-run') return 'Its maximum run time ends.';
  return `The last activity is ${causeText(decision.because, at)}.`;
}

export type WorkspaceActivities = ReturnType<typeof makeWorkspaceActivity>;
