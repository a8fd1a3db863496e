import { getHealth } from '@cde/api/health.ts';
import fp from 'fastify-plugin';
import { knownMigrations } from '../database/migrate.ts';
import { replicaUrl } from '../database/plugin.ts';
import { serve } from '../http/serve.ts';
import { enqueueAlerts } from '../idle/alerts.ts';
import { listNodes } from '../nodes/read.ts';
import { version } from '../version.ts';
import { makeHealth } from './health.ts';

const maxNodes = 10_000;

/** What is wrong with the installation: for people who ask, and for the webhook. */
export const installationHealthPlugin = fp(
  async (app) => {
    const { database, now, providers, replica, satellites, config } = app;
    const health = makeHealth({
      sources: {
        ...{ database, now, version },
        newestMigration: async () => (await knownMigrations()).at(-1)?.number ?? 0,
        satellites: () => satellites.store.list(),
        nodes: async () =>
          (await listNodes(database, providers, { limit: maxNodes, show: 'problems' })).items,
        otherReplicas: async () => (await replica.urls()).filter((url) => url !== replicaUrl(app)),
      },
      announce: (tx, alerts) => enqueueAlerts(tx, alerts, { now: now(), accessUrl: config.accessUrl }),
    });
    serve(app, getHealth, () => health.read());
    app.decorate('installationHealth', { sweep: health.sweep });
    app.onSweep(health.sweep);
  },
  { name: 'installation-health', dependencies: ['database', 'http', 'identity', 'nodes', 'satellites'] },
);

declare module 'fastify' {
  interface FastifyInstance {
    /** One sweep now, for tests. */
    readonly installationHealth: { sweep(): Promise<void> };
  }
}
