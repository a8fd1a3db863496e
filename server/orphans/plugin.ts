import fp from 'fastify-plugin';
import { loggerOf } from '../log.ts';
import { makeProviderOrphans } from './provider-orphans.ts';
import { orphanRoutes } from './routes.ts';
import { makeOrphanSweep, registerOrphanMetrics } from './sweep.ts';

/** What is on clusters and engines without a workspace: listed, cleaned up, adopted. */
export const orphansPlugin = fp(
  async (app) => {
    const { config, database, now, providers } = app;
    const log = loggerOf(app);
    const homeGraceMs = config.homeGraceDays * 24 * 3600_000;
    const sweep = makeOrphanSweep({
      database,
      sources: [app.kubernetesOrphans, makeProviderOrphans({ database, providers, homeGraceMs, now, log })],
      policy: config.orphans,
      now,
      log,
    });
    registerOrphanMetrics(app.metrics, sweep);
    orphanRoutes(app, sweep);
    app.onSweep(() => sweep.runIfDue());
  },
  { name: 'orphans', dependencies: ['kubernetes'] },
);
