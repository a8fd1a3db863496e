import fp from 'fastify-plugin';
import { loggerOf } from '../../log.ts';
import { agentBundle } from '../agent-program.ts';
import { gatewayFolder } from '../gateway/gateway.ts';
import { makeIncusProvider } from './provider.ts';

/** Workspaces as virtual machines or system containers of an Incus server. */
export const incusProviderPlugin = fp(
  async (app) => {
    const { config } = app;
    if (!config.incus || app.hasOwnProviders) return;
    const isHere = config.incus.url.startsWith('unix:') && process.platform === 'linux';
    const provider = makeIncusProvider({
      address: config.incus,
      installation: app.installation,
      agent: { folder: agentBundle, node: process.execPath },
      gatewayFolder: isHere ? gatewayFolder(config.dataDir) : null,
      log: loggerOf(app),
      now: app.now,
    });
    app.providers.set('incus', provider);
    app.addHook('onClose', () => provider.close());
  },
  { name: 'incus-provider', dependencies: ['providers', 'identity'] },
);
