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

/** Replaces port 0 (tests) by a free port, because the access URL must be known before anything is composed. */
async function withPort(config: Readonly<Config>): Promise<Readonly<Config>> {
  if (config.listen.port !== 0) return config;
  const server = createServer().listen({ host: config.listen.host, port: 0 });
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return {
    ...config,
    listen: { ...config.listen, port },
    accessUrl: config.accessUrl.replace(/:0$/, `:${port}`),
  };
}

/**
 * Starts a server on a migrated database: listens, joins the replicas, continues builds in progress. Rejects with the
 * listener's error (EADDRINUSE, EACCES).
 */
export async function startControlPlane(options: ServerOptions): Promise<ControlPlane> {
  const config = await withPort(options.config);
  const app = await composeServer({ web: join(root, 'web', 'dist'), ...options, config });
  try {
    await app.listen({ host: config.listen.host, port: config.listen.port });
    await app.startBackgroundWork();
  } catch (error) {
    await app.close();
    throw error;
  }
  return { app, url: app.listenUrl(), providers: app.providers, stop: () => app.close() };
}
