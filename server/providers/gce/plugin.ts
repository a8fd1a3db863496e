import fp from 'fastify-plugin';
import { loggerOf } from '../../log.ts';
import { makeGceProvider } from './provider.ts';

/** Workspaces as virtual machines on Google Compute Engine. */
export const gceProviderPlugin = fp(
  async (app) => {
    const { config } = app;
    if (!config.gce || app.hasOwnProviders) return;
    // Before the server listens: loading it blocks the event loop for a moment.
    await import('google-auth-library');
    const provider = makeGceProvider({
      address: config.gce,
      installation: app.installation,
      hasRegistered: app.boots.hasRegistered,
      certificateAuthorities: config.agentCa,
      log: loggerOf(app),
      now: app.now,
    });
    app.providers.set('gce', provider);
    app.addHook('onClose', () => provider.close());
  },
  { name: 'gce-provider', dependencies: ['providers', 'boots'] },
);
