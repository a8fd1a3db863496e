import fp from 'fastify-plugin';
import { openGateway } from './gateway.ts';

/** The server's socket for agents on this machine that have a network of their own: of the local provider, of Docker and of Incus. */
export const gatewayPlugin = fp(
  async (app) => {
    const { config } = app;
    const isUsed =
      config.localProvider || config.docker?.url.startsWith('unix:') || config.incus?.url.startsWith('unix:');
    if (!isUsed || process.platform !== 'linux') return;
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
  { name: 'gateway', dependencies: ['base', 'satellites'] },
);
