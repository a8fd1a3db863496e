import { dayMs } from '@cde/api/durations.ts';
import { lt, sql } from 'drizzle-orm';
import { connectionEvents, recordings, satelliteWindows } from '../database/diagnosis-schema.ts';
import type { Database } from '../database/pool.ts';
import type { Partitions } from './partitions.ts';

/** Samples of ten seconds. */
const samplesForMs = 2 * dayMs;
/** Sessions, with what happened to them and their incidents. */
const recordingsForMs = 30 * dayMs;
/** Rows deleted in one statement. */
const maxRows = 5_000;

/** Deletes what is no longer needed, and prepares the partitions of tomorrow. */
export async function cleanUpRecordings({ db }: Database, partitions: Partitions, now: Date): Promise<void> {
  await partitions.ensure([now, new Date(now.getTime() + dayMs)]);
  await partitions.dropBefore(now.getTime() - samplesForMs);
  await db.delete(satelliteWindows).where(lt(satelliteWindows.at, new Date(now.getTime() - samplesForMs)));
  const oldest = new Date(now.getTime() - recordingsForMs);
  await db.delete(connectionEvents).where(lt(connectionEvents.at, oldest));
  for (;;) {
    const { rowCount } = await db.execute(
      sql`DELETE FROM recordings WHERE id IN (SELECT id FROM ${recordings} WHERE ${recordings.knownUntil} < ${oldest} LIMIT ${maxRows})`,
    );
    if ((rowCount ?? 0) < maxRows) return;
  }
}
