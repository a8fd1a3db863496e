import { inArray } from 'drizzle-orm';
import type { Database } from '../database/pool.ts';
import { workspaces } from '../database/schema.ts';
import { isUuid } from '../http/cursor.ts';
import type { Logger } from '../log.ts';
import type { Provider } from '../providers/provider.ts';
import { protectedHomes } from './homes.ts';
import { deleteSpentJobs, enqueueReconciles } from './queue.ts';
import { stalledWorkspaces, workspacesAtStart } from './store.ts';

const intervalMs = 60_000;
/** An agent reports every 30 s. After three missed reports the workspace is checked. */
const agentSilentMs = 95_000;

/**
 * Handles what no event announces. At start: everything that was in progress when the last server ended. Each minute:
 * stalled workspaces, retained homes past their grace period, and `afterEach`.
 */
export function makeSweep(options: {
  database: Database;
  providers: Map<string, Provider>;
  homeGraceMs: number;
  now: () => Date;
  log: Logger;
  afterEach: () => Promise<void>;
}): { start(): Promise<void>; runOnce(): Promise<void>; stop(): void } {
  const { database, providers, now, log } = options;
  let timer: NodeJS.Timeout | null = null;

  const wakeAll = (ids: string[]) => enqueueReconciles(database.db, ids, { isSweep: true });

  async function runOnce(): Promise<void> {
    await wakeAll(await stalledWorkspaces(database.db, new Date(now().getTime() - agentSilentMs)));
    const except = await protectedHomes(database.db, now());
    const retainedBefore = new Date(now().getTime() - options.homeGraceMs);
    for (const provider of providers.values()) {
      const { purged } = await provider.purgeHomes({ retainedBefore, except });
      if (purged.length > 0) {
        await database.db
          .update(workspaces)
          .set({ homeKeptUntil: null })
          .where(inArray(workspaces.id, purged.filter(isUuid)));
        log.info(
          { provider: provider.name, workspaces: purged },
          'deleted retained homes past their grace period',
        );
      }
    }
    await deleteSpentJobs(database);
    await options.afterEach();
  }

  function schedule(): void {
    timer = setTimeout(async () => {
      await runOnce().catch((error) =>
        log.warn({ err: error }, 'the sweep failed; it runs again in a minute'),
      );
      if (timer) schedule();
    }, intervalMs);
    timer.unref();
  }

  return {
    runOnce: runOnce,
    async start() {
      await wakeAll(await workspacesAtStart(database.db));
      schedule();
    },
    stop() {
      if (timer) clearTimeout(timer);
      timer = null;
    },
  };
}
