import { dayMs } from '@cde/api/durations.ts';
import { type Resolution, resolutionMs } from '@cde/api/session-values.ts';
import type { SessionStretch } from '@cde/api/sessions.ts';
import { and, asc, eq, gte, lt } from 'drizzle-orm';
import {
  type recordings,
  sessionHours,
  sessionMinutes,
  sessionWindows,
} from '../database/diagnosis-schema.ts';
import type { Database } from '../database/pool.ts';
import { mergeStretches, type Stretch } from './merge.ts';
import type { Retention } from './retention.ts';
import { fromRolledRow, toStretch } from './rollup.ts';
import { pathOf } from './sessions.ts';

/** What fits on a chart, and into a page. */
const autoPoints = 1_500;
/** Windows that are not rolled up yet: those of five minutes, or of hours if a server was down. */
const maxWindows = 5_000;

type Recording = Pick<typeof recordings.$inferSelect, 'id' | 'rolledUntil'>;

/** The finest resolution with at most `autoPoints` that is still there at the begin of the range. */
export function chooseResolution(
  { from, to }: { from: Date; to: Date },
  now: Date,
  retention: Pick<Retention, 'recordingSampleDays' | 'recordingMinuteDays'>,
): Resolution {
  const isThere = (days: number) => from.getTime() >= now.getTime() - days * dayMs;
  const fits = (resolution: Resolution) =>
    (to.getTime() - from.getTime()) / resolutionMs[resolution] <= autoPoints;
  if (fits('10s') && isThere(retention.recordingSampleDays)) return '10s';
  if (fits('1m') && isThere(retention.recordingMinuteDays)) return '1m';
  return '1h';
}

/** Reads what a session recorded, in order, at most `limit` stretches. */
export async function readStretches(
  database: Database,
  recording: Recording,
  range: { from: Date; to: Date; resolution: Resolution; limit: number },
  regionOf: (via: string) => string | null,
): Promise<Stretch[]> {
  const { db } = database;
  const { id, rolledUntil } = recording;
  const { from, to, resolution, limit } = range;
  const windows = async (since: Date, max: number) => {
    const rows = await db
      .select()
      .from(sessionWindows)
      .where(
        and(eq(sessionWindows.recordingId, id), gte(sessionWindows.at, since), lt(sessionWindows.at, to)),
      )
      .orderBy(asc(sessionWindows.at))
      .limit(max);
    return rows.map((row) => toStretch(row, regionOf));
  };
  if (resolution === '10s') return windows(from, limit);

  const unitMs = resolutionMs[resolution];
  const table = resolution === '1m' ? sessionMinutes : sessionHours;
  const rolled = (
    await db
      .select()
      .from(table)
      .where(and(eq(table.recordingId, id), gte(table.at, new Date(floor(from, unitMs))), lt(table.at, to)))
      .orderBy(asc(table.at))
      .limit(limit)
  ).map(fromRolledRow);
  if (rolled.length === limit) return rolled;
  // What came in since the last roll-up, with all of the minute, or hour, that it stopped in.
  const rolledMinute = rolledUntil ? floor(rolledUntil, resolutionMs['1m']) : 0;
  if (resolution === '1m') {
    const since = new Date(Math.max(rolledMinute, floor(from, unitMs)));
    return append(rolled, mergeStretches(await windows(since, maxWindows), unitMs)).slice(0, limit);
  }
  const since = new Date(Math.max(floor(new Date(rolledMinute), unitMs), floor(from, unitMs)));
  const minutes = await readStretches(
    database,
    recording,
    { from: since, to, resolution: '1m', limit: maxWindows },
    regionOf,
  );
  return append(rolled, mergeStretches(minutes, unitMs)).slice(0, limit);
}

/** Those of `newer` replace the others from its first on. */
function append(older: readonly Stretch[], newer: readonly Stretch[]): Stretch[] {
  const first = newer[0]?.at.getTime() ?? Number.POSITIVE_INFINITY;
  return [...older.filter(({ at }) => at.getTime() < first), ...newer];
}

const floor = (at: Date, unitMs: number) => Math.floor(at.getTime() / unitMs) * unitMs;

export const toSessionStretch = (
  { at, path, ...stretch }: Stretch,
  nameOf: (url: string) => string,
): SessionStretch => ({
  ...stretch,
  at: at.toISOString(),
  path: path && pathOf(path.kind, path.via, nameOf),
});
