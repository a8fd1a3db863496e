import { inArray } from 'drizzle-orm';
import type { Database } from '../database/pool.ts';
import { workspaces } from '../database/schema.ts';
import { isUuid } from '../identity/cursor.ts';
import type { Logger } from '../log.ts';
import type { Provider } from '../providers/provider.ts';
import { claimedHomes } from './homes.ts';
import { enqueueReconciles } from './queue.ts';
import { workspacesToReconcile } from './store.ts';

const intervalMs = 60_000;
/** An agent reports every 30 s; after three silences somebody goes and looks. */
const agentSilentMs = 95_000;

/**
 * What no event announces: at the start, everything that was under way when the last server ended; each
 * minute, workspaces whose agent fell silent, homes past their grace, and whatever `alsoEach` adds.
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
    await wakeAll(await workspacesToReconcile(database.db, new Date(now().getTime() - agentSilentMs)));
    const claimed = await claimedHomes(database.db);
    const retainedBefore = new Date(now().getTime() - options.homeGraceMs);
    for (const provider of providers.values()) {
      const { purged } = await provider.purgeHomes({ retainedBefore, except: claimed });
      if (purged.length > 0) {
        await database.db
          .update(workspaces)
          .set({ homeKeptUntil: null })
          .where(inArray(workspaces.id, purged.filter(isUuid)));
        log.info(
          { provider: provider.name, workspaces: purged },
          'homes past their grace period were deleted',
        );
      }
    }
    // What the queue leaves of a job that was replaced while its replica died: spent, and nobody's.
    await database.pool.query(
      'DELETE FROM graphile_worker._private_jobs WHERE key IS NULL AND locked_at IS NULL AND attempts >= max_attempts',
    );
    await options.afterEach();
  }

  function plan(): void {
    timer = setTimeout(async () => {
      await runOnce().catch((error) =>
        log.warn({ err: error }, 'the sweep failed; it comes again in a minute'),
      );
      if (timer) plan();
    }, intervalMs);
    timer.unref();
  }

  return {
    runOnce: runOnce,
    async start() {
      await wakeAll(await workspacesToReconcile(database.db, null));
      plan();
    },
    stop() {
      if (timer) clearTimeout(timer);
      timer = null;
    },
  };
}
