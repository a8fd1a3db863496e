import fp from 'fastify-plugin';
import { loggerOf } from '../log.ts';
import type { OrphanSource } from '../orphans/source.ts';
import { makeKubernetes } from './kubernetes.ts';

declare module 'fastify' {
  interface FastifyInstance {
    readonly kubernetesOrphans: OrphanSource;
  }
}

/** Clusters, builders, kubectl credentials and the Kubernetes provider. */
export const kubernetesPlugin = fp(
  async (app) => {
    const { config, database, keys, installation, now } = app;
    const kubernetes = makeKubernetes({ config, database, keys, installation, now, log: loggerOf(app) });
    app.decorate('dryRun', kubernetes.dryRun);
    // Before the server listens, so that it does not start with a CDE_CLUSTER that cannot be used.
    app.addHook('onReady', () => kubernetes.connect());
    app.addHook('onClose', () => kubernetes.close());
    if (!app.hasOwnProviders) {
      const provider = kubernetes.makeProvider({
        satelliteUrls: async () => (await app.satellites.store.listServing()).map(({ url }) => url),
      });
      app.providers.set('kubernetes', provider);
      app.addHook('onClose', () => provider.close());
    }
    app.decorate('kubernetesOrphans', kubernetes.orphans);
    kubernetes.register(app);
  },
  { name: 'kubernetes', dependencies: ['http', 'identity', 'telemetry', 'satellites', 'providers'] },
);
