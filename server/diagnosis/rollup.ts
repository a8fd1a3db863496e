import { setImmediate as breathe } from 'node:timers/promises';
import { and, asc, eq, gte, inArray, lte, sql } from 'drizzle-orm';
import {
  recordings,
  sessionHours,
  sessionMinutes,
  type sessionWindows,
} from '../database/diagnosis-schema.ts';
import type { Database, Queryable } from '../database/pool.ts';
import { mergeStretches, type Stretch, slowMsOf } from './merge.ts';
import { hostFromRow, hostToRow, legFromRow, legToRow } from './samples.ts';

export const minuteMs = 60_000;
export const hourMs = 3_600_000;
/** Recordings and their windows in one transaction, so that none of them holds the event loop or locks for long. */
const maxRecordings = 200;
const maxWindows = 5_000;

type RolledTable = typeof sessionMinutes | typeof sessionHours;
type WindowRow = typeof sessionWindows.$inferSelect;

/** A window of ten seconds as a stretch. */
export const toStretch = (
  row: Omit<WindowRow, 'recordingId'>,
  regionOf: (via: string) => string | null,
): Stretch => {
  const toAgent = legFromRow(row.toAgent);
  return {
    at: row.at,
    ms: row.ms,
    slowMs: slowMsOf(row.ms, toAgent),
    path: row.pathKind === null ? null : { kind: row.pathKind, via: row.pathVia ?? '' },
    region: row.pathKind === 'relay' ? regionOf(row.pathVia ?? '') : null,
    toSatellite: legFromRow(row.toSatellite),
    satelliteToAgent: legFromRow(row.satelliteToAgent),
    toAgent,
    bytes: Number(row.bytes),
    host: hostFromRow(row.host),
  };
};

export const fromRolledRow = (row: Omit<typeof sessionMinutes.$inferSelect, 'recordingId'>): Stretch => ({
  at: row.at,
  ms: row.ms,
  slowMs: row.slowMs,
  path: row.pathKind === null ? null : { kind: row.pathKind, via: row.pathVia ?? '' },
  region: row.region,
  toSatellite: legFromRow(row.toSatellite),
  satelliteToAgent: legFromRow(row.satelliteToAgent),
  toAgent: legFromRow(row.toAgent),
  bytes: Number(row.bytes),
  host: hostFromRow(row.host),
});

const toRow = (recordingId: string, { path, ...stretch }: Stretch): typeof sessionMinutes.$inferInsert => ({
  recordingId,
  at: stretch.at,
  ms: Math.round(stretch.ms),
  slowMs: Math.round(stretch.slowMs),
  pathKind: path?.kind ?? null,
  pathVia: path?.via ?? null,
  region: stretch.region,
  toSatellite: legToRow(stretch.toSatellite),
  satelliteToAgent: legToRow(stretch.satelliteToAgent),
  toAgent: legToRow(stretch.toAgent),
  bytes: Math.round(stretch.bytes),
  host: hostToRow(stretch.host),
});

/**
 * Merges windows of ten seconds into minutes and those into hours, for the recordings that are due. A transaction takes a
 * recording, writes its minutes and hours and notes how far it came: it can be killed at any time and run on all replicas.
 * Returns whether more are due.
 */
export async function rollUp(deps: {
  database: Database;
  now: Date;
  regionOf: (via: string) => string | null;
}): Promise<boolean> {
  const { database, now, regionOf } = deps;
  return database.db.transaction(async (tx) => {
    const due = await tx
      .select({ id: recordings.id, rolledUntil: recordings.rolledUntil })
      .from(recordings)
      .where(lte(recordings.rollUpAt, now))
      .orderBy(asc(recordings.rollUpAt))
      .limit(maxRecordings)
      .for('update', { skipLocked: true });
    if (due.length === 0) return false;
    const ids = due.map(({ id }) => id);
    const windows = await readWindows(tx, ids);
    const isCut = windows.length === maxWindows;
    const lastRead = windows.at(-1)?.recordingId;

    const minutes: (typeof sessionMinutes.$inferInsert)[] = [];
    for (const [id, rows] of groupBy(windows)) {
      const merged = mergeStretches(
        rows.map((row) => toStretch(row, regionOf)),
        minuteMs,
      );
      minutes.push(...merged.map((minute) => toRow(id, minute)));
      await breathe();
    }
    await upsert(tx, sessionMinutes, minutes);
    await upsert(tx, sessionHours, await hoursOf(tx, minutes));

    for (const [id, rows] of groupBy(windows))
      await tx
        .update(recordings)
        .set({ rolledUntil: rows.at(-1)!.at, ...(!(isCut && id === lastRead) && { rollUpAt: null }) })
        .where(eq(recordings.id, id));
    // Of these no windows were read: there are none, or they come after the cut.
    const withWindows = new Set(windows.map(({ recordingId }) => recordingId));
    const empty = ids.filter((id) => !withWindows.has(id) && !(isCut && id > lastRead!));
    if (empty.length > 0)
      await tx.update(recordings).set({ rollUpAt: null }).where(inArray(recordings.id, empty));
    return isCut || due.length === maxRecordings;
  });
}

/** The windows that are not part of a minute yet, and the others of the last minute; by recording, oldest first. */
async function readWindows(tx: Queryable, ids: string[]): Promise<WindowRow[]> {
  const { rows } = await tx.execute<Record<string, unknown>>(sql`
    SELECT w.* FROM recordings r
      JOIN session_windows w
        ON w.recording_id = r.id AND w.at >= coalesce(date_trunc('minute', r.rolled_until), '-infinity')
     WHERE r.id = ANY (${sql.param(ids)}::uuid[])
     ORDER BY w.recording_id, w.at
     LIMIT ${maxWindows}`);
  return rows.map((row) => ({
    recordingId: row.recording_id as string,
    at: new Date(row.at as string),
    ms: row.ms as number,
    pathKind: row.path_kind as string | null,
    pathVia: row.path_via as string | null,
    toSatellite: row.to_satellite as number[] | null,
    satelliteToAgent: row.satellite_to_agent as number[] | null,
    toAgent: row.to_agent as number[] | null,
    bytes: Number(row.bytes),
    host: row.host as (number | null)[],
  }));
}

/** The hours that these minutes belong to, made of all their minutes. */
async function hoursOf(tx: Queryable, minutes: readonly (typeof sessionMinutes.$inferInsert)[]) {
  const hours: (typeof sessionHours.$inferInsert)[] = [];
  for (const [id, own] of groupBy(minutes)) {
    const from = Math.floor(own[0]!.at.getTime() / hourMs) * hourMs;
    const rows = await tx
      .select()
      .from(sessionMinutes)
      .where(and(eq(sessionMinutes.recordingId, id), gte(sessionMinutes.at, new Date(from))))
      .orderBy(asc(sessionMinutes.at));
    hours.push(...mergeStretches(rows.map(fromRolledRow), hourMs).map((hour) => toRow(id, hour)));
  }
  return hours;
}

async function upsert(tx: Queryable, table: RolledTable, rows: (typeof sessionMinutes.$inferInsert)[]) {
  const columns = [
    'ms',
    'slow_ms',
    'path_kind',
    'path_via',
    'region',
    'to_satellite',
    'satellite_to_agent',
    'to_agent',
    'bytes',
    'host',
  ];
  const camel = (name: string) => name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
  if (rows.length === 0) return;
  await tx
    .insert(table)
    .values(rows)
    .onConflictDoUpdate({
      target: [table.recordingId, table.at],
      set: Object.fromEntries(columns.map((name) => [camel(name), sql.raw(`excluded.${name}`)])),
    });
}

function groupBy<Row extends { recordingId: string }>(rows: readonly Row[]): Map<string, Row[]> {
  const groups = new Map<string, Row[]>();
  for (const row of rows) {
    const group = groups.get(row.recordingId);
    if (group) group.push(row);
    else groups.set(row.recordingId, [row]);
  }
  return groups;
}
