import type { IncidentCause, IncidentKind } from '@cde/api/diagnosis-values.ts';
import { incidentCauses } from '@cde/api/diagnosis-values.ts';
import { dayMs } from '@cde/api/durations.ts';
import type { NetworkGrouping } from '@cde/api/session-values.ts';
import type { NetworkGroup, NetworkOverview } from '@cde/api/sessions.ts';
import { type SQL, sql } from 'drizzle-orm';
import type { Database, Db } from '../database/pool.ts';
import type { Sessions } from './sessions.ts';

/** Of longer ranges, hours say enough. */
const maxMinutesRangeMs = 2 * dayMs;
const maxGroups = 200;
const worstCount = 20;
/** Points over time: two days of hours, or a month of days. */
const maxPoints = 60;

interface Range {
  from: Date;
  to: Date;
}

interface Scope extends Range {
  db: Db;
  /** Null: everybody's. */
  userId: string | null;
  table: SQL;
  timeZone: string;
}

/** The region of a stretch, with the cases that have none. */
const regionKey = sql`CASE WHEN s.path_kind IS NULL THEN 'none' WHEN s.path_kind = 'relay' THEN coalesce(s.region, 'unknown') ELSE 'direct' END`;
const hourKey = ({ timeZone }: Scope) => sql`extract(hour FROM s.at AT TIME ZONE ${timeZone}::text)::int`;

const stretches = ({ table, from, to, userId }: Scope) => sql`
  ${table} s JOIN recordings r ON r.id = s.recording_id
  WHERE s.at >= ${from} AND s.at < ${to}${userId === null ? sql`` : sql` AND r.user_id = ${userId}`}`;

const legs = sql`
  percentile_disc(0.5) WITHIN GROUP (ORDER BY s.to_agent[1]) AS agent50,
  percentile_disc(0.95) WITHIN GROUP (ORDER BY s.to_agent[2]) AS agent95, max(s.to_agent[3]) AS "agentMax",
  percentile_disc(0.5) WITHIN GROUP (ORDER BY s.to_satellite[1]) AS near50,
  percentile_disc(0.95) WITHIN GROUP (ORDER BY s.to_satellite[2]) AS near95, max(s.to_satellite[3]) AS "nearMax",
  percentile_disc(0.5) WITHIN GROUP (ORDER BY s.satellite_to_agent[1]) AS far50,
  percentile_disc(0.95) WITHIN GROUP (ORDER BY s.satellite_to_agent[2]) AS far95, max(s.satellite_to_agent[3]) AS "farMax"`;

interface GroupRow extends Record<string, unknown> {
  key: string;
  sessions: number;
  ms: string;
  slowMs: string;
  incidents: number;
}

const pathKey = sql`coalesce(s.path_kind, 'none')`;

/** Assigns what happened in the recording `r` to a group. `at`: when; `ofPath`: the key of the path that it had then. */
function groupKey(
  by: NetworkGrouping,
  { timeZone }: Scope,
  { at, ofPath }: { at: SQL; ofPath: (key: SQL) => SQL },
): SQL {
  switch (by) {
    case 'user':
      return sql`(SELECT username FROM users WHERE id = r.user_id)`;
    case 'workspace':
      return sql`(SELECT u.username || '/' || w.name FROM workspaces w JOIN users u ON u.id = w.owner_id WHERE w.id = r.workspace_id)`;
    case 'client-version':
      return sql`r.client_version`;
    case 'hour':
      return sql`to_char(${at} AT TIME ZONE ${timeZone}::text, 'HH24')`;
    case 'path':
      return ofPath(pathKey);
    case 'region':
      return ofPath(regionKey);
  }
}

const ofStretch = { at: sql`s.at`, ofPath: (key: SQL) => key };
const ofIncident = {
  at: sql`i.at`,
  ofPath: (key: SQL) => sql`coalesce((
    SELECT ${key} FROM session_minutes s
     WHERE s.recording_id = i.recording_id AND s.at <= i.at AND s.path_kind IS NOT NULL
     ORDER BY s.at DESC LIMIT 1), 'none')`,
};

const incidentsIn = ({ from, to, userId }: Scope) => sql`
  incidents i JOIN recordings r ON r.id = i.recording_id
  WHERE i.at >= ${from} AND i.at < ${to}${userId === null ? sql`` : sql` AND i.user_id = ${userId}`}`;

async function rowsOf<Row extends Record<string, unknown>>(db: Db, query: SQL): Promise<Row[]> {
  return (await db.execute(query)).rows as Row[];
}

/** By `key`, or all as one group. */
async function readGroups(scope: Scope, by: NetworkGrouping | null): Promise<NetworkGroup[]> {
  const { db } = scope;
  const key = by === null ? sql`''` : groupKey(by, scope, ofStretch);
  const counted = by === null ? sql`''` : groupKey(by, scope, ofIncident);
  const rows = await rowsOf<GroupRow>(
    db,
    sql`
      WITH used AS (
        SELECT ${key} AS key, count(DISTINCT s.recording_id)::int AS sessions, sum(s.ms) AS ms,
               sum(s.slow_ms) AS "slowMs", ${legs}
          FROM ${stretches(scope)} GROUP BY 1
      ), broken AS (SELECT ${counted} AS key, count(*)::int AS incidents FROM ${incidentsIn(scope)} GROUP BY 1)
      SELECT used.*, coalesce(broken.incidents, 0) AS incidents FROM used LEFT JOIN broken USING (key)
       ORDER BY "slowMs" DESC, incidents DESC, ms DESC LIMIT ${maxGroups}`,
  );
  return rows.map(toGroup);
}

function toGroup(row: GroupRow): NetworkGroup {
  const leg = (name: string) => {
    const [p50, p95, max] = [`${name}50`, `${name}95`, `${name}Max`].map(
      (each) => row[each] as number | null,
    );
    return p50 == null || p95 == null || max == null
      ? null
      : { p50: rounded(p50), p95: rounded(p95), max: rounded(max) };
  };
  return {
    key: row.key,
    sessions: row.sessions,
    ms: Number(row.ms),
    slowMs: Number(row.slowMs),
    incidents: row.incidents,
    toAgent: leg('agent'),
    toSatellite: leg('near'),
    satelliteToAgent: leg('far'),
  };
}

/** To a hundredth of a millisecond. */
const rounded = (ms: number) => Math.round(ms * 100) / 100;

const emptyTotal = {
  ...{ sessions: 0, ms: 0, slowMs: 0, incidents: 0 },
  ...{ toAgent: null, toSatellite: null, satelliteToAgent: null },
};

/** The sessions that lost the most time to late answers and interruptions. */
async function readWorst(scope: Scope, sessions: Pick<Sessions, 'byIds'>): Promise<NetworkOverview['worst']> {
  const rows = await rowsOf<{
    id: string;
    ms: string;
    slowMs: string;
    p95: number | null;
    incidents: number;
  }>(
    scope.db,
    sql`
      WITH used AS (
        SELECT s.recording_id AS id, sum(s.ms) AS ms, sum(s.slow_ms) AS "slowMs",
               percentile_disc(0.95) WITHIN GROUP (ORDER BY s.to_agent[2]) AS p95
          FROM ${stretches(scope)} GROUP BY 1
      ), broken AS (
        SELECT i.recording_id AS id, count(*)::int AS incidents,
               sum(CASE WHEN i.kind = 'slow' THEN 0
                        ELSE extract(epoch FROM coalesce(i.ended_at, r.known_until) - i.at) * 1000 END) AS lost
          FROM ${incidentsIn(scope)} GROUP BY 1
      )
      SELECT coalesce(used.id, broken.id) AS id, coalesce(ms, 0) AS ms, coalesce("slowMs", 0) AS "slowMs", p95,
             coalesce(incidents, 0) AS incidents
        FROM used FULL JOIN broken USING (id)
       WHERE coalesce("slowMs", 0) > 0 OR incidents > 0
       ORDER BY coalesce("slowMs", 0) + coalesce(lost, 0) DESC, incidents DESC NULLS LAST LIMIT ${worstCount}`,
  );
  const known = await sessions.byIds(rows.map(({ id }) => id));
  return rows.flatMap(({ id, ms, slowMs, p95, ...row }) => {
    const session = known.get(id);
    return session
      ? [{ session, ms: Number(ms), slowMs: Number(slowMs), p95: p95 === null ? null : rounded(p95), ...row }]
      : [];
  });
}

async function readCauses(scope: Scope): Promise<NetworkOverview['causes']> {
  const rows = await rowsOf<{
    cause: IncidentCause;
    kinds: Partial<Record<IncidentKind, number>>;
    incidents: number;
    sessions: number;
    users: number;
    ms: string;
  }>(
    scope.db,
    sql`
      SELECT cause, jsonb_object_agg(kind, count) AS kinds, sum(count)::int AS incidents,
             max(sessions)::int AS sessions, max(users)::int AS users, sum(ms) AS ms
        FROM (SELECT i.cause, i.kind, count(*)::int AS count,
                     sum(extract(epoch FROM coalesce(i.ended_at, r.known_until) - i.at) * 1000) AS ms
                FROM ${incidentsIn(scope)} GROUP BY 1, 2) by_kind
        JOIN (SELECT i.cause, count(DISTINCT i.recording_id) AS sessions, count(DISTINCT i.user_id) AS users
                FROM ${incidentsIn(scope)} GROUP BY 1) by_cause USING (cause)
       GROUP BY 1 ORDER BY incidents DESC, cause`,
  );
  return rows.map((row) => ({
    ...row,
    segment: incidentCauses[row.cause],
    ms: Math.max(0, Math.round(Number(row.ms))),
  }));
}

/** Intervals that give at most `maxPoints`: an hour or a multiple of it. */
function intervalOf({ from, to }: Range): number {
  const hours = [1, 3, 6, 12, 24, 168, 720];
  const length = (to.getTime() - from.getTime()) / 3_600_000;
  return (hours.find((each) => length / each <= maxPoints) ?? 8_760) * 3600;
}

async function readOverTime(scope: Scope) {
  const seconds = intervalOf(scope);
  const bucket = (at: SQL) =>
    sql`date_bin(make_interval(secs => ${seconds}::float8), ${at}, '2000-01-01'::timestamptz)`;
  const [overTime, causes] = await Promise.all([
    rowsOf<{ at: Date; region: string; ms: string; slowMs: string }>(
      scope.db,
      sql`SELECT ${bucket(sql`s.at`)} AS at, ${regionKey} AS region, sum(s.ms) AS ms, sum(s.slow_ms) AS "slowMs"
            FROM ${stretches(scope)} GROUP BY 1, 2 ORDER BY 1, 2 LIMIT 5000`,
    ),
    rowsOf<{ at: Date; cause: string; incidents: number }>(
      scope.db,
      sql`SELECT ${bucket(sql`i.at`)} AS at, i.cause, count(*)::int AS incidents
            FROM ${incidentsIn(scope)} GROUP BY 1, 2 ORDER BY 1, 2 LIMIT 5000`,
    ),
  ]);
  return {
    overTime: overTime.map(({ at, region, ms, slowMs }) => ({
      ...{ at: new Date(at).toISOString(), region, ms: Number(ms), slowMs: Number(slowMs) },
    })),
    causesOverTime: causes.map((row) => ({ ...row, at: new Date(row.at).toISOString() })),
  };
}

async function readByHour(scope: Scope): Promise<NetworkOverview['byHour']> {
  const rows = await rowsOf<{ region: string; hour: number; ms: string; slowMs: string }>(
    scope.db,
    sql`SELECT ${regionKey} AS region, ${hourKey(scope)} AS hour, sum(s.ms) AS ms, sum(s.slow_ms) AS "slowMs"
          FROM ${stretches(scope)} GROUP BY 1, 2 ORDER BY 1, 2 LIMIT 5000`,
  );
  return rows.map(({ ms, slowMs, ...row }) => ({ ...row, ms: Number(ms), slowMs: Number(slowMs) }));
}

/** Summarizes what sessions recorded in a range. What came in the last five minutes may be missing. */
export async function readNetwork(
  deps: { database: Database; sessions: Pick<Sessions, 'byIds' | 'countActive'> },
  options: Range & { userId: string | null; by: NetworkGrouping; timeZone: string },
): Promise<NetworkOverview> {
  const { from, to, userId, by, timeZone } = options;
  const isShort = to.getTime() - from.getTime() <= maxMinutesRangeMs;
  const scope: Scope = {
    ...{ from, to, userId, timeZone, db: deps.database.db },
    table: isShort ? sql`session_minutes` : sql`session_hours`,
  };
  const [groups, [total], worst, causes, overTime, byHour, activeSessions] = await Promise.all([
    readGroups(scope, by),
    readGroups(scope, null),
    readWorst(scope, deps.sessions),
    readCauses(scope),
    readOverTime(scope),
    readByHour(scope),
    deps.sessions.countActive(userId),
  ]);
  const { key: _, ...sum } = total ?? { key: '', ...emptyTotal };
  return {
    ...{ from: from.toISOString(), to: to.toISOString(), resolution: isShort ? '1m' : '1h' },
    ...{
      ofEverybody: userId === null,
      activeSessions,
      total: sum,
      groups,
      worst,
      causes,
      ...overTime,
      byHour,
    },
  };
}
