import { dayMs } from '@cde/api/durations.ts';
import { sql } from 'drizzle-orm';
import type { Db } from '../database/pool.ts';

/** The tables of samples. */
const partitioned = ['session_windows', 'workspace_windows'] as const;
/** Of PostgreSQL's advisory locks: two replicas create the partitions of a day one after the other. */
const lockKey = 0xd1a9;

const dayOf = (at: number) => Math.floor(at / dayMs) * dayMs;
const suffixOf = (day: number) => new Date(day).toISOString().slice(0, 10).replaceAll('-', '');

/** Creates partitions by day when they are needed, and drops those that are too old. */
export function makePartitions(db: Db) {
  const known = new Set<number>();

  async function create(day: number): Promise<void> {
    const bounds = `FROM ('${new Date(day).toISOString()}') TO ('${new Date(day + dayMs).toISOString()}')`;
    await db.transaction(async (tx) => {
      await tx.execute(sql`SELECT pg_advisory_xact_lock(${lockKey})`);
      for (const table of partitioned)
        await tx.execute(
          sql.raw(
            `CREATE TABLE IF NOT EXISTS ${table}_${suffixOf(day)} PARTITION OF ${table} FOR VALUES ${bounds}`,
          ),
        );
    });
    known.add(day);
  }

  return {
    /** Makes sure that samples of these moments can be inserted. */
    async ensure(moments: Iterable<Date>): Promise<void> {
      const days = new Set([...moments].map((at) => dayOf(at.getTime())));
      for (const day of days) if (!known.has(day)) await create(day);
    },
    /** Drops the partitions of days that ended before this moment. */
    async dropBefore(moment: number): Promise<void> {
      const { rows } = await db.execute<{ name: string }>(sql`
        SELECT c.relname AS name FROM pg_inherits i
          JOIN pg_class c ON c.oid = i.inhrelid
          JOIN pg_class p ON p.oid = i.inhparent
         WHERE p.relname IN ('session_windows', 'workspace_windows') AND p.relnamespace = c.relnamespace`);
      const oldest = suffixOf(dayOf(moment));
      for (const { name } of rows) {
        const suffix = /^[a-z_]+_(\d{8})$/.exec(name)?.[1];
        if (suffix !== undefined && suffix < oldest)
          await db.execute(sql.raw(`DROP TABLE IF EXISTS ${name}`));
      }
      for (const day of known) if (day < dayOf(moment)) known.delete(day);
    },
  };
}

export type Partitions = ReturnType<typeof makePartitions>;
