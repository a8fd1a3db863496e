import { type CleanupReport, getCleanupReport } from '@cde/api/cleanup.ts';
import { dayMs } from '@cde/api/durations.ts';
import type { ReportKey } from '@cde/api/idle-values.ts';
import { type SQL, sql } from 'drizzle-orm';
import type { FastifyInstance } from 'fastify';
import { makeCoalescer } from '../database/coalesce.ts';
import type { Database, Queryable } from '../database/pool.ts';
import { serve } from '../http/serve.ts';

/**
 * For how long one stop counts as saved. Without a limit, workspaces that everybody has forgotten would save most of all. It also
 * bounds how far back the query looks.
 */
const maxSavedDays = 30;
const maxRows = 1_000;
/** How far a report goes back. */
const maxDays = 400;
/** The first time, 400 days are summed up at once. */
const rollUpTimeout = '15min';
/** Of PostgreSQL's advisory locks. */
const rollUpLock = 0x1d1f;

const keys: Record<ReportKey, SQL> = {
  template: sql`t.name`,
  owner: sql`u.username`,
  cluster: sql`sums.cluster`,
  'node-pool': sql`sums.node_pool`,
  day: sql`to_char(day, 'YYYY-MM-DD')`,
};

const startOfDay = (at: number) => new Date(Math.floor(at / dayMs) * dayMs);
const moment = (date: Date) => sql`${date.toISOString()}::timestamptz`;

/** Sums of the days (UTC) from `from` to `to`, as `cleanup_days` has them, from the starts and stops until `now`. */
function sumsOf(from: Date, to: Date, now: Date): SQL {
  const scanFrom = new Date(from.getTime() - maxSavedDays * dayMs);
  return sql`
    WITH events AS MATERIALIZED (
      SELECT workspace_id, kind, cause, at, node_pool,
             lead(at) OVER each_workspace AS next_at, lag(at) OVER each_workspace AS previous_at
        FROM activity_events
       WHERE kind IN ('started', 'stopped') AND at >= ${moment(scanFrom)} AND at < ${moment(now)}
      WINDOW each_workspace AS (PARTITION BY workspace_id ORDER BY at, id)
    ), spans AS (
      SELECT e.workspace_id, e.node_pool, true AS running, e.at AS since,
             coalesce(e.next_at, CASE WHEN w.status = 'running' THEN ${moment(now)} ELSE w.updated_at END) AS until
        FROM events e JOIN workspaces w ON w.id = e.workspace_id WHERE e.kind = 'started'
      UNION ALL -- It was running already when the first of these events stopped it.
      SELECT workspace_id, node_pool, true, ${moment(scanFrom)}, at
        FROM events WHERE kind = 'stopped' AND previous_at IS NULL
      UNION ALL -- It has been running all the time.
      SELECT w.id, w.node_pool, true, ${moment(scanFrom)}, ${moment(now)} FROM workspaces w
       WHERE w.status = 'running' AND NOT EXISTS (SELECT FROM events e WHERE e.workspace_id = w.id)
      UNION ALL
      SELECT e.workspace_id, e.node_pool, false, e.at,
             least(coalesce(e.next_at, CASE WHEN w.status = 'deleted' THEN coalesce(w.deleted_at, w.updated_at) ELSE ${moment(now)} END),
                   e.at + make_interval(days => ${maxSavedDays}))
        FROM events e JOIN workspaces w ON w.id = e.workspace_id
       WHERE e.kind = 'stopped' AND e.cause <> 'request'
    ), clipped AS (
      SELECT spans.*, w.template_id, w.owner_id, coalesce(w.cluster, w.provider) AS cluster,
             -- Pools of two clusters can have the same name. Runs before pools were recorded are in none.
             coalesce(w.cluster || '/' || coalesce(spans.node_pool, 'unknown'), w.provider) AS pool,
             spans.since >= ${moment(from)} AS begins,
             greatest(spans.since, ${moment(from)}, w.created_at) AS first, least(spans.until, ${moment(to)}) AS last
        FROM spans JOIN workspaces w ON w.id = spans.workspace_id
    ), parts AS (
      SELECT *, begins AND day = date_trunc('day', first AT TIME ZONE 'UTC') AS is_stop,
             extract(epoch FROM least(last, (day + interval '1 day') AT TIME ZONE 'UTC')
                              - greatest(first, day AT TIME ZONE 'UTC')) / 3600 AS hours
        FROM clipped
        CROSS JOIN generate_series(date_trunc('day', first AT TIME ZONE 'UTC'), last AT TIME ZONE 'UTC', '1 day') AS day
       WHERE first < last
    )
    SELECT day::date AS day, template_id, owner_id, cluster, pool AS node_pool,
           coalesce(sum(hours) FILTER (WHERE running), 0)::float8 AS running_hours,
           coalesce(sum(hours) FILTER (WHERE NOT running), 0)::float8 AS stopped_hours,
           (count(*) FILTER (WHERE NOT running AND is_stop))::int AS stops
      FROM parts
     WHERE day < ${moment(to)} AT TIME ZONE 'UTC'
     GROUP BY 1, 2, 3, 4, 5`;
}

/** Until which day `cleanup_days` has the sums. */
async function summedUntil(db: Queryable): Promise<Date | null> {
  const { rows } = await db.execute<{ until: string | null }>(
    sql`SELECT to_char(days_until, 'YYYY-MM-DD') AS until FROM cleanup_state`,
  );
  return rows[0]?.until ? new Date(`${rows[0].until}T00:00:00Z`) : null;
}

/** Sums up the days that are over since the last time. Called by the sweep, on one replica at a time. */
export async function sumUpDays({ db }: Database, now: Date): Promise<void> {
  const today = startOfDay(now.getTime());
  const oldest = startOfDay(now.getTime() - maxDays * dayMs);
  const done = await summedUntil(db);
  if (done && done >= today) return;
  await db.transaction(async (tx) => {
    const { rows } = await tx.execute<{ locked: boolean }>(
      sql`SELECT pg_try_advisory_xact_lock(${rollUpLock}) AS locked`,
    );
    if (!rows[0]?.locked) return;
    await tx.execute(sql`SELECT set_config('statement_timeout', ${rollUpTimeout}, true)`);
    const until = await summedUntil(tx);
    const from = until && until > oldest ? until : oldest;
    if (from >= today) return;
    await tx.execute(sql`
      INSERT INTO cleanup_days (day, template_id, owner_id, cluster, node_pool, running_hours, stopped_hours, stops)
      ${sumsOf(from, today, now)} ON CONFLICT DO NOTHING`);
    await tx.execute(sql`DELETE FROM cleanup_days WHERE day < ${oldest.toISOString()}::date`);
    await tx.execute(sql`
      INSERT INTO cleanup_state (days_until) VALUES (${today.toISOString().slice(0, 10)}::date)
      ON CONFLICT (id) DO UPDATE SET days_until = excluded.days_until`);
  });
}

/** The hours for which workspaces ran, and those for which a policy had stopped them, in the last days (UTC, today included). */
export async function readCleanupReport(
  { db }: Database,
  { days, by }: { days: number; by: ReportKey },
  now: Date,
): Promise<CleanupReport> {
  const from = startOfDay(now.getTime() - (days - 1) * dayMs);
  const summed = await summedUntil(db);
  // What is not summed up yet: today, and after an upgrade more.
  const live = summed && summed > from ? summed : from;
  const { rows } = await db.execute<CleanupReport['rows'][number]>(sql`
    WITH sums AS (
      SELECT * FROM cleanup_days
       WHERE day >= ${from.toISOString().slice(0, 10)}::date AND day < ${live.toISOString().slice(0, 10)}::date
      UNION ALL
      SELECT * FROM (${sumsOf(live, now, now)}) AS recent
    )
    SELECT ${keys[by]} AS key, sum(running_hours)::float8 AS "runningHours", sum(stopped_hours)::float8 AS "stoppedHours",
           sum(stops)::int AS stops
      FROM sums
      JOIN users u ON u.id = sums.owner_id
      JOIN templates t ON t.id = sums.template_id
     GROUP BY 1 ORDER BY ${by === 'day' ? sql`1` : sql`3 DESC, 1`} LIMIT ${maxRows}`);
  return { from: from.toISOString(), to: now.toISOString(), rows };
}

export function cleanupReportRoute(
  app: FastifyInstance,
  deps: { database: Database; now: () => Date },
): void {
  // The query reads every start and stop of the last month: one at a time of each.
  const coalesce = makeCoalescer<CleanupReport>();
  serve(app, getCleanupReport, ({ query }) =>
    coalesce(`${query.by} ${query.days}`, () => readCleanupReport(deps.database, query, deps.now())),
  );
}
