import { join } from 'node:path';
import type { Log } from '@cde/tunnel/log.ts';
import type { Isolation } from './isolation.ts';
import { refreshResolv, repairNetwork } from './network.ts';
import type { Runs } from './runs.ts';
import type { Watcher } from './watcher.ts';

const intervalMs = 30_000;

/** Repairs what other programs undo: reloading a firewall drops our rules, and the machine's resolvers change. */
export function makeNetworkRepair(options: {
  isolation: () => Promise<Isolation>;
  runs: Runs;
  watcher: Watcher;
  log: Log;
}) {
  const { isolation, runs, watcher, log } = options;
  let repairedAt = Number.NEGATIVE_INFINITY;
  let closed = false;

  async function repair(): Promise<void> {
    const { network } = await isolation();
    if (closed || network.kind === 'shared') return;
    await repairNetwork(network);
    repairedAt = performance.now();
    if (network.kind === 'veth')
      for (const workspaceId of watcher.workspaceIds())
        refreshResolv(join(runs.folder(workspaceId), 'resolv.conf'));
  }

  const timer = setInterval(() => {
    if (watcher.workspaceIds().length === 0) return;
    repair().catch((error) =>
      log.warn({ err: error }, "local provider: the workspaces' network could not be repaired"),
    );
  }, intervalMs);
  timer.unref();

  return {
    /** Call before a start. Does nothing if it ran a moment ago. */
    async ensure(): Promise<void> {
      if (repairedAt + intervalMs < performance.now()) await repair();
    },
    close() {
      closed = true;
      clearInterval(timer);
    },
  };
}

export type NetworkRepair = ReturnType<typeof makeNetworkRepair>;
