import { ApiError } from '@cde/api/errors.ts';
import fp from 'fastify-plugin';
import { z } from 'zod';
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

function makeReadiness(options: {
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

const Health = z.object({ status: z.enum(['ok', 'ready', 'starting']), waitsFor: z.string().optional() });
const healthSchema = (summary: string) => ({
  summary,
  tags: ['health'],
  security: [],
  response: { 200: Health, 503: z.union([Health, ApiError]), '4xx': ApiError, '5xx': ApiError },
});

/** `/healthz` and `/readyz`. An app that does not start its background work (tests) is ready at once. */
export const healthPlugin = fp(
  async (app) => {
    const { database, relay, replica } = app;
    const readiness = makeReadiness({
      database,
      urls: () => replica.urls(),
      agentsHere: () => relay.stats().workspaces,
    });
    app.onStart(() => readiness.begin());
    app.addHook('preClose', async () => readiness.stop());
    app.get('/healthz', { schema: healthSchema('Whether the process is alive') }, async () => ({
      status: 'ok',
    }));
    app.get(
      '/readyz',
      { schema: healthSchema('Whether the server accepts requests') },
      async (_request, reply) => {
        await database.pool.query('SELECT 1');
        const waitsFor = readiness.waitsFor();
        return waitsFor === null
          ? { status: 'ready' }
          : reply.code(503).send({ status: 'starting', waitsFor });
      },
    );
  },
  { name: 'health', dependencies: ['database', 'http', 'satellites'] },
);
