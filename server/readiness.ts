import type { Database } from './database/pool.ts';

/** By then every agent that can come has come: they report twice a minute, and learn of new replicas by that. */
const maxWaitMs = 40_000;
/** Of the agents of running workspaces; a few are always on the way. */
const requiredShare = 0.95;
const checkIntervalMs = 500;

/**
 * Whether a load balancer may send clients to this replica. One that has just started beside others is not ready before
 * the agents have come to its relay too: a client that was led to it could not reach its workspace. Alone it is ready
 * at once, as waiting would help nobody.
 */
export interface Readiness {
  /** Null when it is ready, else what it waits for. */
  waitsFor(): string | null;
  /** Called once the replica has its place among the others. */
  begin(): void;
  stop(): void;
}

export function makeReadiness(options: {
  database: Database;
  /** The URLs of all live replicas. */
  urls: () => Promise<string[]>;
  /** The workspaces whose agents have come here. */
  agentsHere: () => number;
}): Readiness {
  const { database, urls, agentsHere } = options;
  let waitReason: string | null = 'the start';
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
          agentsHere() >= required ? null : `agents: ${agentsHere()} of ${rows[0]!.running} have come`;
      } else waitReason = null;
    } catch {
      // The database is away; /readyz says so itself.
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
