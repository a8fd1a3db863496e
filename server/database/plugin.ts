import fp from 'fastify-plugin';
import { loggerOf } from '../log.ts';
import { version } from '../version.ts';
import { makeReplica, type Replica } from './replicas.ts';
import { watchDatabase } from './watchdog.ts';

declare module 'fastify' {
  interface FastifyInstance {
    /** This process among the other replicas of the installation. */
    readonly replica: Replica;
  }
}

/** The URL that agents reach this replica by. */
export function replicaUrl(app: {
  config: { replicaUrl?: string | undefined; loopback: boolean; listen: { host: string }; accessUrl: string };
  listenUrl(): string;
}): string {
  const { config } = app;
  const isWildcard = config.listen.host === '0.0.0.0' || config.listen.host === '::';
  return config.replicaUrl ?? (config.loopback || isWildcard ? app.listenUrl() : config.accessUrl);
}

export const databasePlugin = fp(
  async (app) => {
    const log = loggerOf(app);
    const { database } = app;
    app.decorate(
      'replica',
      makeReplica({
        database,
        version,
        log,
        // Read when the replica registers: by then the server listens.
        get url() {
          return replicaUrl(app);
        },
      }),
    );
    let stopWatchdog: (() => Promise<void>) | undefined;
    app.onStart(() => {
      stopWatchdog = watchDatabase(database, log);
    });
    app.addHook('onClose', async () => stopWatchdog?.());
  },
  { name: 'database', dependencies: ['base'] },
);
