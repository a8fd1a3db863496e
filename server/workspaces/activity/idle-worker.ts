import type { Database } from '../../database/pool.ts';
import type { IdleSweep, SweepResult } from '../../idle/sweep.ts';
import type { Logger } from '../../log.ts';

const intervalMs = 5_000;
/** Of PostgreSQL's advisory locks; the workspaces' own are in another namespace. */
export const sweepLockKey = 0x1d1e;

/**
 * Runs the sweep of idle workspaces every 5 s on one replica at a time. The lock ends with its connection, so another replica
 * takes over within one interval.
 */
export function makeIdleWorker(options: {
  database: Database;
  log: Logger;
  sweep: Pick<IdleSweep, 'runOnce'>;
  /** Starts workspaces by their schedules; returns how many. */
  startDue: () => Promise<number>;
  /** Makes workspaces dormant, archives and deletes them, if no person uses them. */
  sweepUnused: () => Promise<void>;
  onResult: (result: SweepResult) => void;
}): { start(): void; runOnce(): Promise<SweepResult | null>; stop(): Promise<void> } {
  const { database, log, sweep, startDue, sweepUnused, onResult } = options;
  let timer: NodeJS.Timeout | null = null;
  let running: Promise<unknown> = Promise.resolve();
  let stopped = false;

  /** Null: another replica is at it. */
  async function runOnce(): Promise<SweepResult | null> {
    const client = await database.pool.connect();
    let isReusable = false;
    try {
      const { rows } = await client.query<{ locked: boolean }>('SELECT pg_try_advisory_lock($1) AS locked', [
        sweepLockKey,
      ]);
      if (!rows[0]?.locked) {
        isReusable = true;
        return null;
      }
      const result = await sweep.runOnce();
      result.started = await startDue();
      onResult(result);
      await sweepUnused();
      await client.query('SELECT pg_advisory_unlock($1)', [sweepLockKey]);
      isReusable = true;
      return result;
    } finally {
      client.release(!isReusable);
    }
  }

  function schedule(): void {
    timer = setTimeout(() => {
      running = runOnce()
        .catch((error) => log.warn({ err: error }, 'the sweep of idle workspaces failed; it runs again soon'))
        .finally(() => {
          if (!stopped) schedule();
        });
    }, intervalMs);
    timer.unref();
  }

  return {
    start: schedule,
    runOnce,
    async stop() {
      stopped = true;
      if (timer) clearTimeout(timer);
      await running;
    },
  };
}
