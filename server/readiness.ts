import type { Database } from './database/pool.ts';

/** By then every agent that can connect has done so: agents learn of new replicas when they report, twice a minute. */
const maxWaitMs = 40_000;
/** The share of running workspaces whose agent must be connected; a few are always reconnecting. */
const requiredShare = 0.95;
const checkIntervalMs = 500;

/**
 * Whether a load balancer can send clients to this replica. A new replica beside others is not ready until the agents
 * have connected to its relay, because its clients could not reach their workspaces. A single replica is ready at once.
 */
export interface Readiness {
  /** What the replica waits for, or null when it is ready. */
  waitsFor(): string | null;
  /** Call once the replica is registered. */
  begin(): void;
  stop(): void;
}

export function makeReadiness(options: {
  database: Database;
  /** The URLs of all live replicas. */
  urls: () => Promise<string[]>;
  /** The number of workspaces whose agents are connected to this replica. */
  agentsHere: () => number;
}): Readiness {
  const { database, urls, agentsHere } = options;
  let waitReason: string | null = 'startup';
  let timer: NodeJS.Timeout | undefined;
  let isStopped = false;

  async function check(until: number): Promise<void> {
    try {
      if (performance.now() < until && (await urls()).length > 1) {
        const { rows } = await database.pool.query<{ running: number }>(
          "SELECT count(*)::int AS running FROM workspaces WHERE status = 'running'",
        );
        const required = Math.ceil(rows[0]!.running * requiredShare);
        waitReason =
          agentsHere() >= required ? null : `agents: ${agentsHere()} of ${rows[0]!.running} are connected`;
      } else waitReason = null;
    } catch {
      // The database is unreachable, which /readyz reports itself.
    }
    if (waitReason !== null && !isStopped) timer = setTimeout(() => void check(until), checkIntervalMs);
  }

  return {
    waitsFor: () => waitReason,
    begin: () => void check(performance.now() + maxWaitMs),
    stop() {
      isStopped = true;
      clearTimeout(timer);
    },
  };
}
