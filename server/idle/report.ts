import { type CleanupReport, getCleanupReport } from '@cde/api/cleanup.ts';
import type { ReportKey } from '@cde/api/idle-values.ts';
import { type SQL, sql } from 'drizzle-orm';
import type { FastifyInstance } from 'fastify';
import { makeCoalescer } from '../database/coalesce.ts';
import type { Database } from '../database/pool.ts';
import { serve } from '../http/serve.ts';

const dayMs = 24 * 3600_000;
/**
 * For how long one stop counts as saved. Without a limit, workspaces that everybody has forgotten would save most of all. It also
 * bounds how far back the query looks.
 */
const maxSavedDays = 30;
const maxRows = 1_000;

const keys: Record<ReportKey, SQL> = {
  template: sql`t.name`,
  owner: sql`u.username`,
  cluster: sql`coalesce(w.cluster, w.provider)`,
  day: sql`to_char(day, 'YYYY-MM-DD')`,
};

/** The hours for which workspaces ran, and those for which a policy had stopped them, in the last days (UTC, today included). */
export async function readCleanupReport(
  { db }: Database,
  { days, by }: { days: number; by: ReportKey },
  now: Date,
): Promise<CleanupReport> {
  const to = now;
  const from = new Date(Math.floor(to.getTime() / dayMs) * dayMs - (days - 1) * dayMs);
  const scanFrom = new Date(from.getTime() - maxSavedDays * dayMs);
  const moment = (date: Date) => sql`${date.toISOString()}::timestamptz`;
  const { rows } = await db.execute<CleanupReport['rows'][number]>(sql`
    WITH events AS (
      SELECT workspace_id, kind, cause, at,
             lead(at) OVER each_workspace AS next_at, lag(at) OVER each_workspace AS previous_at
        FROM activity_events
       WHERE kind IN ('started', 'stopped') AND at >= ${moment(scanFrom)} AND at < ${moment(to)}
      WINDOW each_workspace AS (PARTITION BY workspace_id ORDER BY at, id)
    ), spans AS (
      SELECT e.workspace_id, true AS running, e.at AS since,
             coalesce(e.next_at, CASE WHEN w.status = 'running' THEN ${moment(to)} ELSE w.updated_at END) AS until
        FROM events e JOIN workspaces w ON w.id = e.workspace_id WHERE e.kind = 'started'
      UNION ALL -- It was running already when the first of these events stopped it.
      SELECT workspace_id, true, ${moment(scanFrom)}, at FROM events WHERE kind = 'stopped' AND previous_at IS NULL
      UNION ALL -- It has been running all the time.
      SELECT id, true, ${moment(scanFrom)}, ${moment(to)} FROM workspaces
       WHERE status = 'running' AND id NOT IN (SELECT workspace_id FROM events)
      UNION ALL
      SELECT e.workspace_id, false, e.at,
             least(coalesce(e.next_at, CASE WHEN w.status = 'deleted' THEN coalesce(w.deleted_at, w.updated_at) ELSE ${moment(to)} END),
                   e.at + make_interval(days => ${maxSavedDays}))
        FROM events e JOIN workspaces w ON w.id = e.workspace_id
       WHERE e.kind = 'stopped' AND e.cause <> 'request'
    ), clipped AS (
      SELECT workspace_id, running, since >= ${moment(from)} AS begins,
             greatest(since, ${moment(from)}, w.created_at) AS since, least(until, ${moment(to)}) AS until
        FROM spans JOIN workspaces w ON w.id = workspace_id
    ), parts AS (
      SELECT workspace_id, running, day,
             begins AND day = date_trunc('day', since AT TIME ZONE 'UTC') AS begins,
             extract(epoch FROM least(until, (day + interval '1 day') AT TIME ZONE 'UTC')
                              - greatest(since, day AT TIME ZONE 'UTC')) / 3600 AS hours
        FROM clipped
        CROSS JOIN generate_series(date_trunc('day', since AT TIME ZONE 'UTC'), until AT TIME ZONE 'UTC', '1 day') AS day
       WHERE since < until
    )
    SELECT ${keys[by]} AS key,
           coalesce(sum(hours) FILTER (WHERE running), 0)::float8 AS "runningHours",
           coalesce(sum(hours) FILTER (WHERE NOT running), 0)::float8 AS "stoppedHours",
           (count(*) FILTER (WHERE NOT running AND begins))::int AS stops
      FROM parts
      JOIN workspaces w ON w.id = parts.workspace_id
      JOIN users u ON u.id = w.owner_id
      JOIN templates t ON t.id = w.template_id
     GROUP BY 1 ORDER BY ${by === 'day' ? sql`1` : sql`3 DESC, 1`} LIMIT ${maxRows}`);
  return { from: from.toISOString(), to: to.toISOString(), rows };
}

export function cleanupReportRoute(
  app: FastifyInstance,
  deps: { database: Database; now: () => Date },
): void {
  // The query reads every start and stop of the days: one at a time of each.
  const coalesce = makeCoalescer<CleanupReport>();
  serve(app, getCleanupReport, ({ query }) =>
    coalesce(`${query.by} ${query.days}`, () => readCleanupReport(deps.database, query, deps.now())),
  );
}
