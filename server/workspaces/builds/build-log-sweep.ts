import { sql } from 'drizzle-orm';
import type { Database } from '../../database/pool.ts';

/** Builds per statement. A log can be a few megabytes. */
const batchSize = 50;

/**
 * Removes the logs of all but the last `keep` builds of each workspace, and leaves one line that says so. Unfinished
 * builds keep theirs. Resolves with the number of logs removed.
 */
export async function removeOldLogs(database: Database, keep: number): Promise<number> {
  let removed = 0;
  for (;;) {
    const { rowCount } = await database.db.execute(sql`
      WITH ranked AS (
        SELECT b.id, b.finished_at, row_number() OVER (PARTITION BY b.workspace_id ORDER BY b.number DESC) AS rank
          FROM build_log_sizes s JOIN builds b ON b.id = s.build_id
         WHERE NOT s.removed
      ), old AS (
        SELECT id, finished_at FROM ranked WHERE rank > ${keep} AND finished_at IS NOT NULL LIMIT ${batchSize}
      ), deleted AS (
        -- The first line remains and explains what happened to the others.
        DELETE FROM build_logs l USING old WHERE l.build_id = old.id AND l.seq > 1
      ), explained AS (
        UPDATE build_logs l
           SET source = 'server', level = 'warn', agent_process = NULL, agent_seq = NULL, at = old.finished_at,
               text = ${`The log of this build was removed. Logs are kept for the last ${keep} builds of a workspace.`}
          FROM old WHERE l.build_id = old.id AND l.seq = 1
      )
      UPDATE build_log_sizes s SET removed = true, bytes = 0 FROM old WHERE s.build_id = old.id`);
    removed += rowCount ?? 0;
    if ((rowCount ?? 0) < batchSize) return removed;
  }
}
