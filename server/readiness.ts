import type { Database } from './database/pool.ts';

/** By then every agent that can come has come: they report twice a minute, and learn of new replicas by that. */
const patienceMs = 40_000;
/** Of the agents of running workspaces; a few are always on the way. */
const enough = 0.95;
const lookEveryMs = 500;

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
  let why: string | null = 'the start';
  let timer: NodeJS.Timeout | undefined;
  let over = false;

  async function look(until: number): Promise<void> {
    try {
      if (performance.now() < until && (await urls()).length > 1) {
        const { rows } = await database.pool.query<{ running: number }>(
          "SELECT count(*)::int AS running FROM workspaces WHERE status = 'running'",
        );
        const wanted = Math.ceil(rows[0]!.running * enough);
        why = agentsHere() >= wanted ? null : `agents: ${agentsHere()} of ${rows[0]!.running} have come`;
      } else why = null;
    } catch {
      // The database is away; /readyz says so itself.
    }
    if (why !== null && !over) timer = setTimeout(() => void look(until), lookEveryMs);
  }

  return {
    waitsFor: () => why,
    begin: () => void look(performance.now() + patienceMs),
    stop() {
      over = true;
      clearTimeout(timer);
    },
  };
}
