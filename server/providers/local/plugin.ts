import fp from 'fastify-plugin';
import { loggerOf } from '../../log.ts';
import { agentProgram } from './agent-program.ts';
import { openGateway } from './gateway.ts';
import { makeLocalProvider } from './provider.ts';

/** Workspaces on the server's own machine. */
export const localProviderPlugin = fp(
  async (app) => {
    const { config } = app;
    if (!config.localProvider) return;
    if (!app.hasOwnProviders) {
      const provider = makeLocalProvider({
        dataDir: config.dataDir,
        agent: agentProgram(),
        isolation: config.isolation,
        network: config.localNetwork,
        log: loggerOf(app),
      });
      app.providers.set('local', provider);
      app.addHook('onClose', () => provider.close());
    }
    if (process.platform !== 'linux') return;
    let gateway: Awaited<ReturnType<typeof openGateway>> | undefined;
    app.onStart(async () => {
      gateway = await openGateway({
        dataDir: config.dataDir,
        server: app.server,
        own: () => new URL(app.listenUrl()).host,
        reach: () => app.satellites.listUrls(),
      });
    });
    app.addHook('onClose', async () => gateway?.close());
  },
  { name: 'local-provider', dependencies: ['providers', 'satellites'] },
);
