import type { Database } from '../database/pool.ts';
import type { Logger } from '../log.ts';
import type { Incidents } from './incidents.ts';
import type { Partitions } from './partitions.ts';
import type { Recordings } from './recordings.ts';
import { boundRecordings, cleanUpRecordings, type Retention } from './retention.ts';
import { rollUp } from './rollup.ts';

const intervalMs = 15_000;
const cleanUpEveryMs = 3600_000;
const boundEveryMs = 300_000;
/** In one interval. */
const maxRecordings = 200;
const maxRollUps = 100;

/**
 * Explains recordings again after agents and satellites have reported, rolls their windows up, and deletes what is too old.
 * Every replica runs it: a recording that is due goes to one of them.
 */
export function makeDiagnosisWorker(deps: {
  database: Database;
  partitions: Partitions;
  recordings: Pick<Recordings, 'takeDue' | 'setFull'>;
  incidents: Pick<Incidents, 'explain'>;
  retention: Retention;
  /** The region of a satellite by its URL. */
  regions: () => Promise<ReadonlyMap<string, string>>;
  now: () => Date;
  log: Logger;
}): { start(): void; runOnce(): Promise<void>; stop(): Promise<void> } {
  const { database, partitions, recordings, incidents, retention, now, log } = deps;
  let timer: NodeJS.Timeout | undefined;
  let running: Promise<void> = Promise.resolve();
  let cleanedUpAt = Number.NEGATIVE_INFINITY;
  let boundAt = Number.NEGATIVE_INFINITY;
  let stopped = false;

  async function runOnce(): Promise<void> {
    for (const id of await recordings.takeDue(maxRecordings)) await incidents.explain(id);
    const isBehind = await rollUpDue();
    if (now().getTime() - boundAt >= boundEveryMs) {
      const { isFull, dropped } = await boundRecordings(partitions, now(), retention);
      if (dropped.length > 0)
        log.warn({ dropped }, 'recordings of sessions took too much space; deleted the oldest early');
      recordings.setFull(isFull);
      boundAt = now().getTime();
    }
    // Nothing is dropped for its age before it was rolled up.
    if (isBehind || now().getTime() - cleanedUpAt < cleanUpEveryMs) return;
    await cleanUpRecordings(database, partitions, now(), retention);
    cleanedUpAt = now().getTime();
  }

  /** Returns whether more is due than fits into one interval. */
  async function rollUpDue(): Promise<boolean> {
    const regions = await deps.regions();
    const regionOf = (via: string) => regions.get(via) ?? null;
    await partitions.ensureRolledUp();
    for (let run = 0; run < maxRollUps && !stopped; run++)
      if (!(await rollUp({ database, now: now(), regionOf }))) return false;
    return true;
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
