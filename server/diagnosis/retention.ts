import { dayMs } from '@cde/api/durations.ts';
import { lt, sql } from 'drizzle-orm';
import type { Config } from '../config.ts';
import {
  connectionEvents,
  recordings,
  satelliteWindows,
  sessionEvents,
} from '../database/diagnosis-schema.ts';
import type { Database } from '../database/pool.ts';
import { type Partition, type PartitionedTable, type Partitions, samples } from './partitions.ts';

export type Retention = Pick<
  Config,
  'recordingSampleDays' | 'recordingMinuteDays' | 'recordingDays' | 'recordingGib'
>;

/** Rows deleted in one statement. */
const maxRows = 5_000;
const gib = 1024 ** 3;

/** Deletes what is no longer needed, and prepares the partitions of tomorrow. */
export async function cleanUpRecordings(
  { db }: Database,
  partitions: Partitions,
  now: Date,
  retention: Retention,
): Promise<void> {
  const before = (days: number) => new Date(now.getTime() - days * dayMs);
  await partitions.ensure(
    [...samples, 'session_minutes', 'session_hours'],
    [now, new Date(now.getTime() + dayMs)],
  );
  const oldestSample = before(retention.recordingSampleDays);
  const oldestMinute = before(retention.recordingMinuteDays);
  const oldest = before(retention.recordingDays);
  await partitions.dropBefore(samples, oldestSample.getTime());
  await partitions.dropBefore(['session_minutes'], oldestMinute.getTime());
  await partitions.dropBefore(['session_hours'], oldest.getTime());
  await db.delete(satelliteWindows).where(lt(satelliteWindows.at, oldestSample));
  await db.delete(connectionEvents).where(lt(connectionEvents.at, oldestMinute));
  const deleteWhile = async (statement: ReturnType<typeof sql>) => {
    for (;;) {
      const { rowCount } = await db.execute(statement);
      if ((rowCount ?? 0) < maxRows) return;
    }
  };
  await deleteWhile(
    sql`DELETE FROM session_events WHERE ctid = ANY (ARRAY(SELECT ctid FROM ${sessionEvents} WHERE ${sessionEvents.at} < ${oldestMinute} LIMIT ${maxRows}))`,
  );
  await deleteWhile(
    sql`DELETE FROM recordings WHERE id IN (SELECT id FROM ${recordings} WHERE ${recordings.knownUntil} < ${oldest} LIMIT ${maxRows})`,
  );
}

/** What is dropped first when there is too much: the finest, since it is also there in a coarser form. */
const dropOrder: readonly PartitionedTable[] = [
  'workspace_windows',
  'session_windows',
  'session_minutes',
  'session_hours',
];

/**
 * Drops partitions of the past, oldest first, until the samples fit into their space. Returns the bytes that remain, and
 * whether they are still too many.
 */
export async function boundRecordings(
  partitions: Pick<Partitions, 'list' | 'drop'>,
  now: Date,
  retention: Pick<Retention, 'recordingGib'>,
): Promise<{ bytes: number; dropped: string[]; isFull: boolean }> {
  const maxBytes = retention.recordingGib * gib;
  const all = await partitions.list();
  let bytes = all.reduce((sum, partition) => sum + partition.bytes, 0);
  const dropped: string[] = [];
  for (const partition of droppable(all, now)) {
    if (bytes <= maxBytes) break;
    await partitions.drop(partition);
    bytes -= partition.bytes;
    dropped.push(partition.name);
  }
  return { bytes, dropped, isFull: bytes > maxBytes };
}

function droppable(all: readonly Partition[], now: Date): Partition[] {
  const rank = ({ table }: Partition) => dropOrder.indexOf(table);
  return all
    .filter(({ endsAt, bytes }) => endsAt <= now.getTime() && bytes > 0)
    .sort((one, other) => rank(one) - rank(other) || one.endsAt - other.endsAt);
}
