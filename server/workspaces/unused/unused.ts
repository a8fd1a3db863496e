import { dayMs } from '@cde/api/durations.ts';
import { dayCountText } from '@cde/api/idle-text.ts';
import { Problem } from '@cde/api/problem.ts';
import { sql } from 'drizzle-orm';
import type { Queryable } from '../../database/pool.ts';
import type { SystemCaller } from '../../identity/audit/audit.ts';
import { writeAudit } from '../../identity/audit/audit.ts';
import {
  type ActivityRow,
  eachActivity,
  insertEvents,
  type NewEvent,
  readActivity,
  targetOf,
  toIso,
  writeActivity,
} from '../../idle/activity-store.ts';
import { evaluateRow, type IdleDeps } from '../../idle/reports.ts';
import { decideUnused, unusedOf } from '../../idle/unused.ts';
import type { Logger } from '../../log.ts';
import { requestUnattended } from '../builds/request-unattended.ts';
import { lockWorkspace } from '../store.ts';

/** The brake counts deletions within this long. */
const brakeWindowMs = dayMs;
/** So few deletions are never too many. */
const brakeMin = 5;
/** A gap between two sweeps that is longer means that no server ran: nobody could read the notice, so it is extended. */
const maxGapMs = 3600_000;

type UnusedAction = 'archive' | 'announce-deletion' | 'await-deletion' | 'delete' | 'hold';
type Decided = ReturnType<typeof decideUnused> & { days: { archive: number | null; delete: number | null } };

interface UnusedResult {
  archived: number;
  announced: number;
  deleted: number;
  held: number;
}

const caller: SystemCaller = { actor: { kind: 'system' }, requestId: 'cleanup', ip: null };

/**
 * Archives dormant workspaces that no person uses, announces their deletion and, when the notice is over, deletes them. A
 * deletion is that of a person: the home is retained. Each change is decided under the lock of the workspace, so that a start
 * in the same second wins.
 */
export function makeUnusedSweep(deps: IdleDeps & { log: Logger }) {
  const { database, bus, now, log } = deps;
  const { db } = database;

  async function decide(row: ActivityRow, at: number): Promise<Decided> {
    const { effective } = await evaluateRow(deps, row, at);
    const { deleteNoticeDays } = await deps.bounds();
    return {
      ...decideUnused(unusedOf(row, effective), { ...row, noticeMs: deleteNoticeDays * dayMs }, at),
      days: { archive: effective.archiveAfterDays, delete: effective.deleteAfterDays },
    };
  }

  /** Dormant workspaces, and those whose deletion has failed; such a deletion is tried again a day later. */
  const dormant = () => eachActivity(db, sql`a.dormant_at IS NOT NULL AND ${isAtRest(now())}`);

  /** How many more workspaces may be deleted within the brake's window. */
  async function allowedDeletions(at: number): Promise<number> {
    const { brakePercent } = await deps.bounds();
    const { rows } = await db.execute<{ existing: number; decided: number }>(sql`
      SELECT (SELECT count(*)::int FROM workspaces WHERE status <> 'deleted') AS existing,
             (SELECT count(*)::int FROM activity_events WHERE kind = 'deletion-decided' AND by IS NULL
                 AND at > to_timestamp(${at - brakeWindowMs} / 1000.0::float8)) AS decided`);
    const { existing, decided } = rows[0]!;
    return Math.max(brakeMin, Math.ceil((existing * brakePercent) / 100)) - decided;
  }

  /** The time without a server does not count as notice. */
  async function extendNotices(at: number): Promise<void> {
    await db.transaction(async (tx) => {
      const moment = new Date(at).toISOString();
      const { rows } = await tx.execute<{ checkedAt: number | null }>(
        sql`SELECT (extract(epoch FROM unused_checked_at) * 1000)::float8 AS "checkedAt" FROM cleanup_state FOR UPDATE`,
      );
      const gapMs = at - (rows[0]?.checkedAt ?? at);
      if (gapMs > maxGapMs)
        await tx.execute(
          sql`UPDATE workspace_activity SET deletes_at = deletes_at + make_interval(secs => ${gapMs / 1000})
               WHERE deletes_at IS NOT NULL`,
        );
      await tx.execute(
        sql`INSERT INTO cleanup_state (unused_checked_at) VALUES (${moment})
            ON CONFLICT (id) DO UPDATE SET unused_checked_at = excluded.unused_checked_at`,
      );
    });
  }

  /** Decides again under the lock of the workspace's row. Null: it is in use, or as it should be. */
  async function lockAndDecide(tx: Queryable, workspaceId: string) {
    await lockWorkspace(tx, workspaceId);
    const [row] = await readActivity(
      tx,
      sql`WHERE w.id = ${workspaceId} AND a.dormant_at IS NOT NULL AND ${isAtRest(now())}`,
    );
    return row ? { row, decided: await decide(row, now().getTime()) } : null;
  }

  async function record(
    tx: Queryable,
    row: ActivityRow,
    action: string,
    event: Pick<NewEvent, 'kind' | 'cause' | 'text'>,
    after: unknown,
  ): Promise<void> {
    await insertEvents(tx, [{ workspaceId: row.workspaceId, at: now().getTime(), ...event }]);
    await writeAudit(tx, caller, {
      action,
      ...targetOf(row),
      before: { archivedAt: toIso(row.archivedAt), deletesAt: toIso(row.deletesAt) },
      after,
    });
  }

  /** Everything but the deletion itself. */
  async function announce(workspaceId: string, result: UnusedResult): Promise<void> {
    const hasChanged = await db.transaction(async (tx) => {
      const found = await lockAndDecide(tx, workspaceId);
      if (!found) return false;
      const { row, decided } = found;
      const { archives, deletion, days } = decided;
      if (archives) {
        const archivedAt = now().getTime();
        const text = `archived: no person has used it for ${dayCountText(days.archive!)}`;
        await writeActivity(tx, workspaceId, { archivedAt });
        await record(
          tx,
          row,
          'cleanup.archive',
          { kind: 'archived', cause: 'archive', text },
          { reason: text },
        );
        result.archived++;
      }
      if (deletion.kind === 'announce') {
        const text = announcement(days.delete!, deletion.at);
        await writeActivity(tx, workspaceId, { deletesAt: deletion.at });
        await record(
          tx,
          row,
          'cleanup.announce-deletion',
          { kind: 'deletion-announced', cause: 'delete', text },
          { deletesAt: toIso(deletion.at), reason: text },
        );
        result.announced++;
      }
      if (deletion.kind === 'cancel') {
        const text = 'will not be deleted: its policy or its use have changed since the announcement';
        await writeActivity(tx, workspaceId, { deletesAt: null, held: false });
        await record(
          tx,
          row,
          'cleanup.cancel-deletion',
          { kind: 'deletion-cancelled', cause: 'delete', text },
          { deletesAt: null, reason: text },
        );
      }
      return archives || deletion.kind === 'announce' || deletion.kind === 'cancel';
    });
    if (hasChanged) bus.publish({ workspaceId });
  }

  async function hold(row: ActivityRow): Promise<void> {
    const { workspaceId } = row;
    if (row.held) return;
    const isHeld = await db.transaction(async (tx) => {
      const found = await lockAndDecide(tx, workspaceId);
      if (found?.decided.deletion.kind !== 'due') return false;
      await writeActivity(tx, workspaceId, { held: true });
      await insertEvents(tx, [
        {
          workspaceId,
          at: now().getTime(),
          kind: 'deletion-held',
          cause: 'delete',
          text: 'is due to be deleted, and waits because many workspaces are: it is deleted later, or once an admin allows it',
        },
      ]);
      return true;
    });
    if (isHeld) bus.publish({ workspaceId });
  }

  /** Returns false if it is no longer due. `by`: the admin who lets it go ahead, so that the brake does not count it. */
  async function remove(row: ActivityRow, by?: string): Promise<boolean> {
    const { workspaceId } = row;
    const { days } = await decide(row, now().getTime());
    if (days.delete === null) return false;
    const reason = `deleted: no person has used it for ${dayCountText(days.delete)}, as announced`;
    const build = await requestUnattended(
      { database, bus, now, log },
      {
        workspaceId,
        transition: 'delete',
        home: 'keep',
        reason,
        isUnused: true,
        action: 'cleanup.delete',
        async confirm(tx) {
          const found = await lockAndDecide(tx, workspaceId);
          if (found?.decided.deletion.kind !== 'due')
            throw new Problem('workspace-busy', 'The workspace is in use again.');
          await writeActivity(tx, workspaceId, { held: false });
          await insertEvents(tx, [
            {
              workspaceId,
              at: now().getTime(),
              kind: 'deletion-decided',
              cause: 'delete',
              ...(by !== undefined && { by }),
              text: reason,
            },
          ]);
        },
      },
    );
    return build !== null;
  }

  return {
    /** One sweep. The caller holds the lock of the sweep of idle workspaces. */
    async runOnce(): Promise<UnusedResult> {
      const result: UnusedResult = { archived: 0, announced: 0, deleted: 0, held: 0 };
      const at = now().getTime();
      await extendNotices(at);
      let allowed: number | null = null;
      for await (const row of dormant()) {
        const { archives, deletion } = await decide(row, at);
        if (archives || deletion.kind === 'announce' || deletion.kind === 'cancel')
          await announce(row.workspaceId, result);
        if (deletion.kind !== 'due') continue;
        allowed ??= await allowedDeletions(at);
        if (allowed <= 0) {
          await hold(row);
          result.held++;
        } else if (await remove(row)) {
          allowed--;
          result.deleted++;
        }
      }
      return result;
    },

    /** Lets the deletions go ahead that the brake holds back. Returns how many. */
    async release(by: string): Promise<number> {
      const held = await readActivity(
        db,
        sql`WHERE a.held AND a.dormant_at IS NOT NULL AND ${isAtRest(now())} LIMIT 10000`,
      );
      let released = 0;
      for (const row of held) if (await remove(row, by)) released++;
      return released;
    },

    /** What the next sweep would do, and which deletions are announced. */
    async *findDue(): AsyncGenerator<{ row: ActivityRow; action: UnusedAction; at: number; text: string }> {
      const at = now().getTime();
      for await (const row of dormant()) {
        const { archives, deletion, days } = await decide(row, at);
        if (archives)
          yield {
            row,
            action: 'archive',
            at,
            text: `No person has used it for ${dayCountText(days.archive!)}.`,
          };
        const unused = `No person has used it for ${dayCountText(days.delete!)}.`;
        if (deletion.kind === 'announce')
          yield {
            row,
            action: 'announce-deletion',
            at,
            text: `After ${dayCountText(days.delete!)} without a person it will be deleted, ${dayOf(deletion.at)}.`,
          };
        if (deletion.kind === 'wait')
          yield { row, action: 'await-deletion', at: deletion.at, text: 'Its deletion is announced.' };
        if (deletion.kind === 'due')
          yield { row, action: row.held ? 'hold' : 'delete', at: deletion.at, text: unused };
      }
    },
  };
}

export type UnusedSweep = ReturnType<typeof makeUnusedSweep>;

/** Stopped, or failed to be deleted by this sweep more than a day ago. */
const isAtRest = (now: Date) => sql`(
  (w.status = 'stopped' AND w.desired = 'stopped')
  OR (w.status = 'failed' AND w.desired = 'deleted' AND EXISTS (
        SELECT FROM builds b WHERE b.id = w.current_build_id AND b.options ? 'isUnused'
                               AND b.created_at < ${new Date(now.getTime() - dayMs).toISOString()})))`;

const dayOf = (at: number) => `on ${new Date(at).toISOString().slice(0, 10)}`;

const announcement = (days: number, at: number) =>
  `will be deleted ${dayOf(at)} unless a person starts or keeps it, or chooses never-stop: no person will have used it for ${dayCountText(days)}. Its home is retained for some time after that`;
