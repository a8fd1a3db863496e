import { hostname } from 'node:os';
import pg from 'pg';
import type { Logger } from '../log.ts';
import type { Database } from './pool.ts';

/** The first half of every replica's advisory lock, an arbitrary constant: ASCII of `cder`. */
const lockClass = 0x63646572;
/** How often a replica looks for dead ones, and so how long their jobs stay locked. */
const checkIntervalMs = 1_000;

export interface Replica {
  /** Registers this replica. Retries while the database is unreachable. */
  join(): Promise<void>;
  /** Called when the connection that holds the registration breaks. */
  onLost(listener: () => void): void;
  /** Records the ids of the job runner's workers, and unlocks the jobs of the previous ones. */
  setWorkers(ids: string[]): Promise<void>;
  /** The URLs of all live replicas, this one's first. */
  urls(): Promise<string[]>;
  leave(): Promise<void>;
}

/**
 * A replica proves that it is alive by holding an advisory lock on a dedicated connection. When its process dies,
 * PostgreSQL releases the lock at once, without comparing clocks. The replica that gets the lock next unlocks the dead
 * replica's jobs.
 */
export function makeReplica(options: {
  database: Database;
  url: string;
  version: string;
  log: Logger;
}): Replica {
  const { database, log } = options;
  let client: pg.Client | null = null;
  let number: number | null = null;
  let timer: NodeJS.Timeout | null = null;
  let hasLeft = false;
  const listeners: (() => void)[] = [];

  async function takeOverDeadReplicas(): Promise<void> {
    const { rows } = await database.pool.query<{
      number: number;
      worker_ids: string[];
      hostname: string;
      pid: number;
    }>('SELECT number, worker_ids, hostname, pid FROM replicas WHERE number IS DISTINCT FROM $1', [number]);
    for (const row of rows) {
      const holder = await database.pool.connect();
      try {
        const { rows: got } = await holder.query<{ got: boolean }>(
          'SELECT pg_try_advisory_lock($1, $2) AS got',
          [lockClass, row.number],
        );
        if (!got[0]?.got) continue;
        try {
          await holder.query('SELECT graphile_worker.force_unlock_workers($1::text[])', [row.worker_ids]);
          await holder.query('DELETE FROM replicas WHERE number = $1', [row.number]);
          log.info(
            { replica: row.number, host: row.hostname, pid: row.pid },
            'a replica died; its jobs were released',
          );
        } finally {
          await holder.query('SELECT pg_advisory_unlock($1, $2)', [lockClass, row.number]);
        }
      } finally {
        holder.release();
      }
    }
    // A replica killed before it recorded its workers leaves locked jobs that belong to no row of `replicas`.
    await database.pool.query(
      `SELECT graphile_worker.force_unlock_workers(array_agg(DISTINCT locked_by))
         FROM graphile_worker._private_jobs
        WHERE locked_at < now() - interval '15 seconds'
          AND locked_by NOT IN (SELECT unnest(worker_ids) FROM replicas)
       HAVING count(*) > 0`,
    );
  }

  function watch(): void {
    timer = setTimeout(async () => {
      await takeOverDeadReplicas().catch((error) =>
        log.debug({ err: error }, 'cannot look for dead replicas'),
      );
      if (!hasLeft && client) watch();
    }, checkIntervalMs);
  }

  async function attempt(): Promise<void> {
    // The job runner can restart while the registration is still held.
    if (client) return;
    const fresh = new pg.Client({
      connectionString: database.url,
      keepAlive: true,
      keepAliveInitialDelayMillis: 10_000,
      connectionTimeoutMillis: 5_000,
      application_name: 'cde-replica',
    });
    const lost = () => {
      if (client !== fresh) return;
      client = null;
      number = null;
      if (timer) clearTimeout(timer);
      if (!hasLeft) for (const listener of listeners) listener();
    };
    fresh.on('error', lost);
    fresh.on('end', lost);
    await fresh.connect();
    try {
      // Row and lock in one transaction: a row without its lock looks like a dead replica.
      await fresh.query('BEGIN');
      const { rows } = await fresh.query<{ number: number }>(
        'INSERT INTO replicas (hostname, pid, version, url) VALUES ($1, $2, $3, $4) RETURNING number',
        [hostname(), process.pid, options.version, options.url],
      );
      number = rows[0]!.number;
      await fresh.query('SELECT pg_advisory_lock($1, $2)', [lockClass, number]);
      await fresh.query('COMMIT');
      client = fresh;
    } catch (error) {
      await fresh.end().catch(() => {});
      throw error;
    }
    await takeOverDeadReplicas();
    if (client !== fresh) throw new Error('the connection of the registration broke');
    watch();
  }

  return {
    async join() {
      for (;;) {
        try {
          await attempt();
          return;
        } catch (error) {
          if (hasLeft) return;
          log.debug({ err: error }, 'cannot register this replica yet');
          await new Promise((resolve) => setTimeout(resolve, 500));
        }
      }
    },
    onLost(listener) {
      listeners.push(listener);
    },
    async setWorkers(ids) {
      // The previous workers have ended, possibly while the database was unreachable, and left jobs locked.
      await database.pool.query(
        'SELECT graphile_worker.force_unlock_workers(worker_ids) FROM replicas WHERE number = $1',
        [number],
      );
      await database.pool.query('UPDATE replicas SET worker_ids = $2 WHERE number = $1', [number, ids]);
    },
    async urls() {
      const { rows } = await database.pool.query<{ url: string }>('SELECT DISTINCT url FROM replicas');
      return [
        options.url,
        ...rows
          .map((row) => row.url)
          .filter((url) => url !== options.url)
          .sort(),
      ];
    },
    async leave() {
      hasLeft = true;
      if (timer) clearTimeout(timer);
      const mine = client;
      client = null;
      if (!mine) return;
      await mine.query('DELETE FROM replicas WHERE number = $1', [number]).catch(() => {});
      await mine.end().catch(() => {});
    },
  };
}
