import { sql } from 'drizzle-orm';
import { validate } from 'uuid';
import type { Database, Queryable } from '../database/pool.ts';
import type { Logger } from '../log.ts';

/**
 * The order in which due steps run: builds in progress, then all others, then what the sweep found. With a thousand
 * workspaces started at once the first are ready while the last still wait, instead of all at the end, and after a
 * restart nothing waits behind the sweep.
 */
const priorities = { inProgress: 0, normal: 10, sweep: 20 } as const;

/** A statement holds one lock per workspace until it ends, and requests may have to wait for them. */
const maxPerStatement = 100;

/**
 * Enqueues a reconcile step of a workspace, in the caller's transaction. Each workspace has at most one queued job (job
 * key). Without `afterMs` the step runs at once, even if a later one was planned; with it, an earlier one remains.
 * `isSweep` lowers the priority, except for builds in progress or queued.
 */
export async function enqueueReconcile(
  tx: Queryable,
  workspaceId: string,
  afterMs = 0,
  options: { isSweep?: boolean } = {},
): Promise<void> {
  await addJobs(tx, [workspaceId], afterMs, options);
}

/** Enqueues steps of many workspaces at once, in few statements. */
export async function enqueueReconciles(
  tx: Queryable,
  workspaceIds: readonly string[],
  options: { isSweep?: boolean } = {},
): Promise<void> {
  // All replicas lock in the same order, so that they cannot deadlock.
  const sorted = [...new Set(workspaceIds)].sort();
  for (let at = 0; at < sorted.length; at += maxPerStatement)
    await addJobs(tx, sorted.slice(at, at + maxPerStatement), 0, options);
}

async function addJobs(
  tx: Queryable,
  workspaceIds: readonly string[],
  afterMs: number,
  { isSweep = false }: { isSweep?: boolean },
): Promise<void> {
  const mode = afterMs > 0 ? 'preserve_run_at' : 'replace';
  await tx.execute(sql`
    SELECT 1
      FROM unnest(${sql.param(workspaceIds)}::uuid[]) AS given (id)
      LEFT JOIN workspaces w ON w.id = given.id
      LEFT JOIN builds b ON b.id = w.current_build_id
     CROSS JOIN LATERAL graphile_worker.add_job(
             'reconcile',
             payload => json_build_object('workspaceId', given.id::text),
             run_at => now() + ${afterMs} * interval '1 millisecond',
             max_attempts => 1000,
             priority => CASE
               WHEN w.status IN ('starting', 'stopping', 'deleting') THEN ${priorities.inProgress}::int
               WHEN b.status = 'queued' THEN ${priorities.normal}::int
               ELSE ${isSweep ? priorities.sweep : priorities.normal}::int
             END,
             job_key => 'workspace:' || given.id,
             job_key_mode => ${mode}
           )`);
}

/**
 * Deletes jobs that can never run again: graphile-worker leaves one when a job is replaced while its replica dies, and each
 * delivery that a webhook has not accepted.
 */
export async function deleteSpentJobs({ pool }: Database): Promise<void> {
  await pool.query(
    `DELETE FROM graphile_worker._private_jobs
      WHERE (key IS NULL OR key LIKE 'webhook:%') AND locked_at IS NULL AND attempts >= max_attempts`,
  );
}

/**
 * Wakes workspaces that a provider reports a change of. Batches all of one moment into one statement, and runs one
 * statement at a time: after a restart the watches report every workspace at once, and a query for each would take all
 * connections and leave none for requests.
 */
export function makeWaker(database: Database, log: Logger): (workspaceId: string) => void {
  const due = new Set<string>();
  let isFlushing = false;

  async function flush(): Promise<void> {
    // Let the rest of this turn of the event loop join the batch.
    await new Promise((resolve) => setImmediate(resolve));
    while (due.size > 0) {
      const batch = [...due];
      due.clear();
      await enqueueReconciles(database.db, batch).catch((error) =>
        log.warn(
          { err: error, workspaces: batch.length },
          'could not enqueue a change; the sweep will find it',
        ),
      );
    }
    isFlushing = false;
  }

  return (workspaceId) => {
    // Objects that others created can carry anything in place of an id.
    if (!validate(workspaceId)) return;
    due.add(workspaceId);
    if (isFlushing) return;
    isFlushing = true;
    void flush();
  };
}
