import { dayMs } from '@cde/api/durations.ts';
import { sql } from 'drizzle-orm';
import type { Db } from '../database/pool.ts';

/** The tables of samples, with the time that a partition holds. */
const partitioned = {
  session_windows: 'day',
  workspace_windows: 'day',
  session_minutes: 'day',
  session_hours: 'month',
} as const;
export type PartitionedTable = keyof typeof partitioned;
export const samples: readonly PartitionedTable[] = ['session_windows', 'workspace_windows'];

/** Of PostgreSQL's advisory locks: two replicas create the partitions of a day one after the other. */
const lockKey = 0xd1a9;

interface Period {
  from: number;
  to: number;
}

function periodOf(table: PartitionedTable, at: number): Period {
  if (partitioned[table] === 'day') {
    const from = Math.floor(at / dayMs) * dayMs;
    return { from, to: from + dayMs };
  }
  const date = new Date(at);
  const [year, month] = [date.getUTCFullYear(), date.getUTCMonth()];
  return { from: Date.UTC(year, month), to: Date.UTC(year, month + 1) };
}

/** `session_windows_20261130`, `session_hours_202611`. */
function partitionName(table: PartitionedTable, from: number): string {
  const date = new Date(from).toISOString().replaceAll('-', '');
  return `${table}_${date.slice(0, partitioned[table] === 'day' ? 8 : 6)}`;
}

/** When the partition of this name ends; null for a table of another form of name. */
function endOf(table: PartitionedTable, name: string): number | null {
  const found = /_(\d{4})(\d\d)(\d\d)?$/.exec(name);
  if (!found) return null;
  const [, year, month, day = '01'] = found;
  return periodOf(table, Date.UTC(Number(year), Number(month) - 1, Number(day))).to;
}

/** A partition with the space that it takes. */
export interface Partition {
  table: PartitionedTable;
  name: string;
  endsAt: number;
  bytes: number;
}

/** Creates partitions when they are needed, and drops those that are too old. */
export function makePartitions(db: Db) {
  const known = new Map<string, Period>();

  async function create(table: PartitionedTable, name: string, { from, to }: Period): Promise<void> {
    const bounds = `FROM ('${new Date(from).toISOString()}') TO ('${new Date(to).toISOString()}')`;
    await db.transaction(async (tx) => {
      await tx.execute(sql`SELECT pg_advisory_xact_lock(${lockKey})`);
      await tx.execute(
        sql.raw(`CREATE TABLE IF NOT EXISTS ${name} PARTITION OF ${table} FOR VALUES ${bounds}`),
      );
    });
    known.set(name, { from, to });
  }

  async function list(): Promise<Partition[]> {
    const { rows } = await db.execute<{ table: PartitionedTable; name: string; bytes: string }>(sql`
      SELECT p.relname AS table, c.relname AS name, pg_total_relation_size(c.oid) AS bytes
        FROM pg_inherits i
        JOIN pg_class c ON c.oid = i.inhrelid
        JOIN pg_class p ON p.oid = i.inhparent
       WHERE p.relname = ANY (${sql.param(Object.keys(partitioned))}) AND p.relkind = 'p'
         AND p.relnamespace = c.relnamespace`);
    return rows.flatMap(({ table, name, bytes }) => {
      const endsAt = endOf(table, name);
      return endsAt === null ? [] : [{ table, name, endsAt, bytes: Number(bytes) }];
    });
  }

  async function drop({ name }: Partition): Promise<void> {
    known.delete(name);
    await db.execute(sql.raw(`DROP TABLE IF EXISTS ${name}`));
  }

  /** Makes sure that rows of these moments can be inserted. */
  async function ensure(tables: readonly PartitionedTable[], moments: Iterable<Date>): Promise<void> {
    const days = new Set([...moments].map((at) => Math.floor(at.getTime() / dayMs)));
    for (const day of days)
      for (const table of tables) {
        const period = periodOf(table, day * dayMs);
        const name = partitionName(table, period.from);
        if (!known.has(name)) await create(table, name, period);
      }
  }

  return {
    list,
    drop,
    ensure,
    /** Makes sure that everything there is can be rolled up. Not within that transaction: it holds locks of these tables. */
    async ensureRolledUp(): Promise<void> {
      const days = (await list()).filter(({ table }) => table === 'session_windows');
      await ensure(
        ['session_minutes', 'session_hours'],
        days.map(({ endsAt }) => new Date(endsAt - 1)),
      );
    },
    /** Drops the partitions of the tables that ended before this moment. */
    async dropBefore(tables: readonly PartitionedTable[], moment: number): Promise<void> {
      for (const partition of await list())
        if (tables.includes(partition.table) && partition.endsAt <= moment) await drop(partition);
      for (const [name, { to }] of known)
        if (to <= moment && tables.some((table) => name.startsWith(`${table}_2`))) known.delete(name);
    },
  };
}

export type Partitions = ReturnType<typeof makePartitions>;
