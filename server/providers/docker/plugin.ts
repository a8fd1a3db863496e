import fp from 'fastify-plugin';
import { loggerOf } from '../../log.ts';
import { agentBundle } from '../agent-program.ts';
import { gatewayFolder } from '../gateway/gateway.ts';
import { makeDockerProvider } from './provider.ts';

/** Workspaces as containers of a Docker engine. */
export const dockerProviderPlugin = fp(
  async (app) => {
    const { config } = app;
    if (!config.docker || app.hasOwnProviders) return;
    const isHere = config.docker.url.startsWith('unix:') && process.platform === 'linux';
    const provider = makeDockerProvider({
      address: config.docker,
      installation: app.installation,
      agent: config.dockerAgentImage
        ? { image: config.dockerAgentImage }
        : { folder: agentBundle, node: process.execPath },
      gatewayFolder: isHere ? gatewayFolder(config.dataDir) : null,
      credentialsFile: config.dockerConfig,
      log: loggerOf(app),
      now: app.now,
    });
    app.providers.set('docker', provider);
    app.addHook('onClose', () => provider.close());
  },
  { name: 'docker-provider', dependencies: ['providers', 'identity'] },
);
