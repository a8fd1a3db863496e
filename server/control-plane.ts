import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { FastifyInstance } from 'fastify';
import { composeServer, type ServerOptions } from './compose.ts';
import type { Config } from './config.ts';
import type { Provider } from './providers/provider.ts';

const root = dirname(dirname(fileURLToPath(import.meta.url)));

export interface ControlPlane {
  app: FastifyInstance;
  /** Where it listens: `http://127.0.0.1:7080`. */
  url: string;
  providers: ReadonlyMap<string, Provider>;
  stop(): Promise<void>;
}

/**
 * Replaces port 0 (tests) by a free port, because the access URL must be known before anything is composed. The port
 * is held until `release`, so that no other program gets it while the server is composed.
 */
async function choosePort(config: Readonly<Config>) {
  if (config.listen.port !== 0) return { config, release: async () => {} };
  const holder = createServer((socket) => socket.destroy()).listen({ host: config.listen.host, port: 0 });
  await once(holder, 'listening');
  const { port } = holder.address() as AddressInfo;
  return {
    config: {
      ...config,
      listen: { ...config.listen, port },
      accessUrl: config.accessUrl.replace(/:0$/, `:${port}`),
    },
    async release() {
      holder.close();
      await once(holder, 'close');
    },
  };
}

const maxPortAttempts = 5;

/**
 * Starts a server on a migrated database: listens, joins the replicas, continues builds in progress. Rejects with the
 * listener's error (EADDRINUSE, EACCES).
 */
export async function startControlPlane(options: ServerOptions): Promise<ControlPlane> {
  // Closing a server closes its providers, so those that were passed in serve for one attempt.
  const maxAttempts = options.config.listen.port === 0 && !options.providers ? maxPortAttempts : 1;
  for (let attempt = 1; ; attempt++) {
    const { config, release } = await choosePort(options.config);
    const app = await composeServer({ web: join(root, 'web', 'dist'), ...options, config }).finally(release);
    try {
      await app.listen({ host: config.listen.host, port: config.listen.port });
      await app.startBackgroundWork();
    } catch (error) {
      await app.close();
      if ((error as { code?: string }).code === 'EADDRINUSE' && attempt < maxAttempts) continue;
      throw error;
    }
    return { app, url: app.listenUrl(), providers: app.providers, stop: () => app.close() };
  }
}
