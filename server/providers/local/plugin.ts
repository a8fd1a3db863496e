import fp from 'fastify-plugin';
import { loggerOf } from '../../log.ts';
import { agentProgram } from '../agent-program.ts';
import { makeLocalProvider } from './provider.ts';

/** Workspaces on the server's own machine. */
export const localProviderPlugin = fp(
  async (app) => {
    const { config } = app;
    if (!config.localProvider || app.hasOwnProviders) return;
    const provider = makeLocalProvider({
      dataDir: config.dataDir,
      agent: agentProgram(),
      isolation: config.isolation,
      network: config.localNetwork,
      log: loggerOf(app),
    });
    app.providers.set('local', provider);
    app.addHook('onClose', () => provider.close());
  },
  { name: 'local-provider', dependencies: ['providers'] },
);
