import { sql } from 'drizzle-orm';
import { type ActivityRow, insertEvents, readActivity, writeActivity } from '../idle/activity-store.ts';
import { decideDormancy } from '../idle/dormant.ts';
import { evaluateRow, type IdleDeps } from '../idle/reports.ts';
import type { Logger } from '../log.ts';
import { requestBuild } from './builds.ts';

const intervalMs = 10 * 60_000;
const dayMs = 24 * 3600_000;
const pageSize = 500;

/**
 * Makes stopped workspaces dormant that no person has used for long. One that runs is stopped by its idle policy first: as
 * long as something works in it, it is not dormant.
 */
export function makeDormancy(deps: IdleDeps & { log: Logger }) {
  const { database, bus, now, log } = deps;
  let lastAt = Number.NEGATIVE_INFINITY;

  async function isDue(row: ActivityRow, createdAt: number, at: number): Promise<boolean> {
    const { effective } = await evaluateRow(deps, row, at);
    const decision = decideDormancy(
      {
        dormantAfterDays: effective.dormantAfterDays,
        personAt: Math.max(row.personAt ?? 0, createdAt),
        neverStopUntil: effective.neverStop ? Date.parse(effective.neverStop.until) : null,
        reportedUntil: null,
      },
      at,
    );
    return decision.kind === 'due';
  }

  async function apply(row: ActivityRow, at: number): Promise<void> {
    const { effective } = await evaluateRow(deps, row, at);
    await requestBuild({ database, bus, now }, 'system', {
      workspaceId: row.workspaceId,
      transition: 'stop',
      makesDormant: true,
      stopCause: 'dormant',
      reason: `dormant: no person has used it for ${effective.dormantAfterDays} days`,
      action: 'cleanup.make-dormant',
    });
    await writeActivity(database.db, row.workspaceId, { dormantAt: at, startsAt: null });
    await insertEvents(database.db, [
      {
        workspaceId: row.workspaceId,
        at,
        kind: 'dormant',
        cause: 'dormant',
        text: `became dormant: no person has used it for ${effective.dormantAfterDays} days`,
      },
    ]);
  }

  return {
    /** Looks at all stopped workspaces, at most every ten minutes. Returns how many become dormant. */
    async runOnce(): Promise<number> {
      const at = now().getTime();
      if (at - lastAt < intervalMs) return 0;
      lastAt = at;
      const old = new Date(at - dayMs).toISOString();
      let count = 0;
      for (let after = '00000000-0000-0000-0000-000000000000'; ; ) {
        const rows = await readActivity(
          database.db,
          sql`WHERE w.status = 'stopped' AND w.desired = 'stopped' AND w.dormant_state IS NULL AND w.id > ${after}
                AND w.created_at < ${old} AND (a.person_at IS NULL OR a.person_at < ${old})
                AND a.dormant_at IS NULL ORDER BY w.id LIMIT ${pageSize}`,
        );
        for (const row of rows) {
          if (!(await isDue(row, createdAtOf(row.workspaceId), at))) continue;
          try {
            await apply(row, at);
            count++;
          } catch (error) {
            log.warn({ err: error, workspace: row.workspaceId }, 'could not make a workspace dormant');
          }
        }
        if (rows.length < pageSize) return count;
        after = rows.at(-1)!.workspaceId;
      }
    },
  };
}

/** Ids are UUIDv7: their first 48 bits are the Unix time in ms. */
const createdAtOf = (id: string) => Number.parseInt(id.replaceAll('-', '').slice(0, 12), 16);
