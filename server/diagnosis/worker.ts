import type { Database } from '../database/pool.ts';
import type { Logger } from '../log.ts';
import type { Incidents } from './incidents.ts';
import type { Partitions } from './partitions.ts';
import type { Recordings } from './recordings.ts';
import { cleanUpRecordings } from './retention.ts';

const intervalMs = 15_000;
const cleanUpEveryMs = 3600_000;
/** In one interval. */
const maxRecordings = 200;

/**
 * Explains recordings again after agents and satellites have reported, and deletes what is too old. Every replica runs it:
 * a recording that is due goes to one of them.
 */
export function makeDiagnosisWorker(deps: {
  database: Database;
  partitions: Partitions;
  recordings: Pick<Recordings, 'takeDue'>;
  incidents: Pick<Incidents, 'explain'>;
  now: () => Date;
  log: Logger;
}): { start(): void; runOnce(): Promise<void>; stop(): Promise<void> } {
  const { database, partitions, recordings, incidents, now, log } = deps;
  let timer: NodeJS.Timeout | undefined;
  let running: Promise<void> = Promise.resolve();
  let cleanedUpAt = Number.NEGATIVE_INFINITY;
  let stopped = false;

  async function runOnce(): Promise<void> {
    for (const id of await recordings.takeDue(maxRecordings)) await incidents.explain(id);
    if (now().getTime() - cleanedUpAt < cleanUpEveryMs) return;
    await cleanUpRecordings(database, partitions, now());
    cleanedUpAt = now().getTime();
  }

  function schedule(): void {
    timer = setTimeout(() => {
      running = runOnce()
        .catch((error) => log.warn({ err: error }, 'explaining incidents failed; it runs again soon'))
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
      clearTimeout(timer);
      await running;
    },
  };
}
