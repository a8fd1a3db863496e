import type { Log } from '@cde/tunnel/log.ts';
import { runIdOf } from './exit-reasons.ts';
import type { RunRecord, Runs } from './runs.ts';

/** How often agents that are not children of this process are checked. */
const pollMs = 1_000;

/** Detects agents that exit by themselves, including those that an earlier server started. */
export function makeWatcher({ runs, log }: { runs: Runs; log: Log }) {
  const watched = new Map<string, RunRecord>();
  const listeners = new Set<(workspaceId: string) => void>();
  let closed = false;

  async function checkOne(workspaceId: string): Promise<void> {
    const run = watched.get(workspaceId);
    if (!run) return;
    const found = await runs.inspect(workspaceId, run);
    if (watched.get(workspaceId) !== run || closed) return;
    if (found.kind === 'alive') {
      // Another server may have replaced it in the meantime.
      if (runIdOf(found.compute) !== runIdOf(run)) watched.set(workspaceId, found.compute);
      return;
    }
    watched.delete(workspaceId);
    log.info({ workspaceId, pid: run.pid }, 'local provider: an agent exited');
    for (const listener of listeners) listener(workspaceId);
  }

  function check(workspaceId: string): void {
    checkOne(workspaceId).catch((error) =>
      log.warn({ err: error, workspaceId }, 'local provider: an agent could not be checked'),
    );
  }

  const timer = setInterval(() => {
    for (const workspaceId of watched.keys()) check(workspaceId);
  }, pollMs);
  timer.unref();

  // Started by an earlier server.
  for (const workspaceId of runs.all()) {
    runs.inspect(workspaceId, null).then(
      (found) => {
        if (found.kind === 'alive' && !watched.has(workspaceId) && !closed)
          watched.set(workspaceId, found.compute);
      },
      () => {},
    );
  }

  return {
    watch: (workspaceId: string, run: RunRecord) => void watched.set(workspaceId, run),
    unwatch: (workspaceId: string) => void watched.delete(workspaceId),
    isWatched: (workspaceId: string) => watched.has(workspaceId),
    workspaceIds: () => [...watched.keys()],
    /** Checks at once, because something suggests that the agent has exited. */
    check,
    onExit: (listener: (workspaceId: string) => void) => void listeners.add(listener),
    close() {
      closed = true;
      clearInterval(timer);
      listeners.clear();
    },
  };
}

export type Watcher = ReturnType<typeof makeWatcher>;
