import { dayMs } from '@cde/api/durations.ts';
import { dayCountText } from '@cde/api/idle-text.ts';
import { sql } from 'drizzle-orm';
import { type ActivityRow, eachActivity } from '../../idle/activity-store.ts';
import { evaluateRow, type IdleDeps } from '../../idle/reports.ts';
import { dormantAtOf, unusedOf } from '../../idle/unused.ts';
import type { Logger } from '../../log.ts';
import { requestUnattended } from '../builds/request-unattended.ts';
import { dormantRequest } from './dormant-request.ts';

/**
 * Makes stopped workspaces dormant that no person has used for long. One that runs is stopped first, by the sweep of idle
 * workspaces: that warns, and asks its agent.
 */
export function makeDormancy(deps: IdleDeps & { log: Logger }) {
  const { database, bus, now, log } = deps;

  /** The days without a person after which the workspace becomes dormant, if they are over. */
  async function dueAfterDays(row: ActivityRow, at: number): Promise<number | null> {
    const { effective } = await evaluateRow(deps, row, at);
    const dormantAt = dormantAtOf(unusedOf(row, effective));
    return dormantAt !== null && at >= dormantAt ? effective.dormantAfterDays : null;
  }

  /** The workspaces that are due. One whose last attempt has failed is due again a day later. */
  async function* findDue(): AsyncGenerator<{ row: ActivityRow; reason: string }> {
    const at = now().getTime();
    const old = new Date(at - dayMs).toISOString();
    const stopped = eachActivity(
      database.db,
      sql`w.status = 'stopped' AND w.desired = 'stopped' AND w.dormant_state IS NULL
          AND w.created_at < ${old} AND (a.person_at IS NULL OR a.person_at < ${old}) AND a.dormant_at IS NULL
          AND NOT EXISTS (SELECT FROM builds b WHERE b.id = w.current_build_id AND b.options ? 'makesDormant'
                                                 AND b.created_at > ${old})`,
    );
    for await (const row of stopped) {
      const days = await dueAfterDays(row, at);
      if (days !== null) yield { row, reason: `dormant: no person has used it for ${dayCountText(days)}` };
    }
  }

  return {
    findDue,

    /** Returns how many workspaces become dormant. */
    async runOnce(): Promise<number> {
      let count = 0;
      for await (const { row, reason } of findDue()) {
        const request = dormantRequest(row.workspaceId, reason);
        if (await requestUnattended({ database, bus, now, log }, request)) count++;
      }
      return count;
    },
  };
}

export type Dormancy = ReturnType<typeof makeDormancy>;
