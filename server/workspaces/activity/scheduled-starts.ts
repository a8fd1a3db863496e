import type { CleanupPolicy } from '@cde/api/cleanup.ts';
import { sql } from 'drizzle-orm';
import { v7 } from 'uuid';
import { workspaceLeases } from '../../database/idle-schema.ts';
import { type ActivityRow, readActivity, writeActivity } from '../../idle/activity-store.ts';
import { scheduledStartLeaseMs } from '../../idle/policy.ts';
import { evaluateRow, type IdleDeps } from '../../idle/reports.ts';
import { type Holidays, nextStart } from '../../idle/schedule.ts';
import type { Logger } from '../../log.ts';
import { requestUnattended } from '../builds/request-unattended.ts';

/** After an outage: a start this long ago is not made up for, because the day is over or its owner has started it. */
const lateMs = 2 * 3600_000;
const batchSize = 200;

/** Starts stopped workspaces by their daily schedules. */
export function makeScheduledStarts(
  deps: IdleDeps & { log: Logger; holidays: (bounds: CleanupPolicy) => Holidays },
) {
  const { database, bus, now, log } = deps;

  async function next(row: ActivityRow): Promise<number | null> {
    const at = now().getTime();
    const { effective } = await evaluateRow(deps, row, at);
    if (!effective.schedule || row.dormantAt !== null) return null;
    return nextStart(effective.schedule, deps.holidays(await deps.bounds()), at);
  }

  async function start(row: ActivityRow): Promise<boolean> {
    const { workspaceId } = row;
    const at = now();
    const isLate = at.getTime() - row.startsAt! > lateMs;
    if (!isLate) {
      const build = await requestUnattended(
        { database, bus, now, log },
        { workspaceId, transition: 'start', reason: 'daily start', action: 'cleanup.start' },
      );
      if (!build) return false;
      await database.db.insert(workspaceLeases).values({
        id: v7(),
        workspaceId,
        by: 'schedule',
        reason: 'daily start',
        createdAt: at,
        expiresAt: new Date(at.getTime() + scheduledStartLeaseMs),
      });
    }
    await writeActivity(database.db, workspaceId, { startsAt: await next(row) });
    return !isLate;
  }

  return {
    next,

    /** Starts those that are due. Returns how many. */
    async startDue(): Promise<number> {
      const due = await readActivity(
        database.db,
        sql`WHERE a.starts_at <= to_timestamp(${now().getTime()} / 1000.0::float8) AND w.status = 'stopped'
              AND w.desired = 'stopped' ORDER BY a.starts_at LIMIT ${batchSize}`,
      );
      let started = 0;
      for (const row of due) if (await start(row)) started++;
      return started;
    },
  };
}
