import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import type { AddressInfo } from 'node:net';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { makeRelay } from '@cde/satellite/relay/relay.ts';
import { type StunService, startStun } from '@cde/satellite/stun/service.ts';
import { embeddedSatellite } from '@cde/tunnel/auth/ticket.ts';
import type { FastifyInstance } from 'fastify';
import { makeApp } from './app.ts';
import type { Config } from './config.ts';
import type { Database } from './database/pool.ts';
import { makeReplica } from './database/replicas.ts';
import { watchDatabase } from './database/watchdog.ts';
import { makeBus } from './events/bus.ts';
import { loadKeys } from './identity/keys.ts';
import { sweepIdentity } from './identity/sweep.ts';
import { makeKubernetes } from './kubernetes/kubernetes.ts';
import type { Logger } from './log.ts';
import { openGateway } from './providers/local/gateway.ts';
import { makeLocalProvider } from './providers/local/provider.ts';
import type { Provider } from './providers/provider.ts';
import { makeReadiness } from './readiness.ts';
import { makeSatelliteStore } from './satellites/store.ts';
import { removeOldLogs } from './workspaces/build-log-sweep.ts';
import { makeReconcileWorker, makeWaker } from './workspaces/queue.ts';
import { makeReconcile } from './workspaces/reconcile.ts';
import { makeSweep } from './workspaces/sweep.ts';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
export const version: string = createRequire(import.meta.url)('../package.json').version;

export interface ControlPlane {
  app: FastifyInstance;
  /** Where it listens: `http://127.0.0.1:7080`. */
  url: string;
  providers: Map<string, Provider>;
  stop(): Promise<void>;
}

/** How the local provider starts an agent: the bundle where it was built, else the sources. */
export function agentProgram(): { command: string[]; readOnlyPaths: string[] } {
  const bundle = join(root, 'agent', 'dist', 'agent.mjs');
  const program = existsSync(bundle) ? bundle : join(root, 'agent', 'main.ts');
  const parts = existsSync(bundle) ? ['agent/dist'] : ['agent', 'api', 'tunnel', 'filesync', 'package.json'];
  return {
    command: [process.execPath, program],
    readOnlyPaths: [...parts.map((part) => join(root, part)), join(root, 'node_modules')],
  };
}

/**
 * Brings a server up on a migrated database: listens, joins the replicas, takes up what was under way.
 * Rejects with the listener's error (EADDRINUSE, EACCES).
 */
export async function startControlPlane(options: {
  config: Config;
  database: Database;
  log: Logger;
  now?: () => Date;
  providers?: Map<string, Provider>;
  checkReplies?: boolean;
}): Promise<ControlPlane> {
  const { config, database, log, now = () => new Date() } = options;
  const homeGraceMs = config.homeGraceDays * 24 * 3600_000;
  const keys = await loadKeys(database, config.dataDir, config.secretKey);
  const bus = makeBus({ url: database.url, pool: database.pool, log });
  const wake = makeWaker(database, log);
  const relay = makeRelay({
    ticketKeys: [keys.tickets.publicKey],
    id: () => embeddedSatellite,
    // Every session says hello and goodbye; that is for whoever looks closely.
    log: {
      debug: log.debug.bind(log),
      info: log.debug.bind(log),
      warn: log.warn.bind(log),
      error: log.error.bind(log),
    },
    // An agent that is gone is worth a look at once, not at its next missed report.
    onPresence: (workspaceId, connected) => {
      if (!connected) wake(workspaceId);
    },
  });
  const providers = options.providers ?? new Map<string, Provider>();
  if (!options.providers && config.localProvider)
    providers.set(
      'local',
      makeLocalProvider({
        dataDir: config.dataDir,
        agent: agentProgram(),
        isolation: config.isolation,
        network: config.localNetwork,
        log,
      }),
    );

  const kubernetes = makeKubernetes({ config, database, keys, now, log });
  const registered = makeSatelliteStore({ database, now });
  if (!options.providers)
    providers.set(
      'kubernetes',
      kubernetes.makeProvider({
        satelliteUrls: async () => (await registered.listServing()).map(({ url }) => url),
      }),
    );
  await kubernetes.connect();

  let url = '';
  let stun: StunService | null = null;
  let urls: () => Promise<string[]> = async () => [url];
  const embedded = (places: string[]) =>
    places.map((place, index) => ({
      name: index === 0 ? 'embedded' : `embedded-${new URL(place).host}`,
      url: place,
      region: config.region,
      // One is as good as another: whoever asks learns the same.
      ...(index === 0 && stun?.address && { stun: stun.address }),
    }));
  const satellites = {
    async forAgents() {
      const replicas = await urls();
      // From another network an agent may not reach a replica by its own address. Where there is one only, the access
      // URL leads to it; with several it would lead to any, and clients to another.
      const elsewhere = config.replicaUrl !== undefined && replicas.length === 1 ? [config.accessUrl] : [];
      return embedded([...replicas, ...elsewhere]);
    },
    // Agents listen at every replica, so it is all one which of them the access URL leads a client to.
    forClients: async () => embedded(config.replicaUrl ? [config.accessUrl] : await urls()),
  };
  const readiness = makeReadiness({
    database,
    urls: () => urls(),
    agentsHere: () => relay.stats().workspaces,
  });
  const app = await makeApp({
    waitsFor: readiness.waitsFor,
    config,
    database,
    keys,
    bus,
    relay,
    log,
    providers,
    satellites,
    kubernetes,
    now,
    web: join(root, 'web', 'dist'),
    checkReplies: options.checkReplies ?? false,
  });
  await app.listen({ host: config.listen.host, port: config.listen.port });
  const { address, port, family } = app.server.address() as AddressInfo;
  const anywhere = address === '0.0.0.0' || address === '::';
  const host = anywhere ? '127.0.0.1' : family === 'IPv6' ? `[${address}]` : address;
  url = `http://${host}:${port}`;
  // Port 0 (tests) is known only now.
  if (config.listen.port === 0 && config.accessUrl.endsWith(':0')) config.accessUrl = url;

  // Behind the access URL of a cluster there may be anything, but hardly a way for UDP.
  const udp = config.udp ?? (config.replicaUrl && !config.udpAddress ? 'off' : undefined);
  stun = await startStun({
    udp,
    announce: config.udpAddress,
    listen: { host: config.listen.host, port },
    url: config.loopback ? url : config.accessUrl,
    log,
  });

  // Before anything starts an agent.
  const gateway =
    config.localProvider && process.platform === 'linux'
      ? await openGateway({
          dataDir: config.dataDir,
          server: app.server,
          own: () => `${host}:${port}`,
          reach: async () => [
            ...(await satellites.forAgents()).map((one) => one.url),
            ...(await registered.listServing()).map((one) => one.url),
          ],
        })
      : null;

  const replica = makeReplica({
    database,
    url: config.replicaUrl ?? (config.loopback || anywhere ? url : config.accessUrl),
    version,
    log,
  });
  urls = () => replica.urls();
  const endWatch = watchDatabase(database, log);
  await bus.start();
  const jobs = makeReconcileWorker({
    database,
    replica,
    log,
    concurrency: config.concurrency,
    reconcile: makeReconcile({
      database,
      bus,
      log,
      now,
      providers,
      agentToken: keys.agentToken,
      // Replicas come and go, and their addresses with them: what stays is first.
      agentUrl: async () => [...(config.replicaUrl ? [config.accessUrl] : []), ...(await urls())].join(','),
      homeGraceMs,
    }),
  });
  for (const provider of providers.values()) provider.onChange(wake);
  await jobs.start();
  readiness.begin();
  const sweep = makeSweep({
    database,
    providers,
    homeGraceMs,
    now,
    log,
    afterEach: async () => {
      await sweepIdentity(database, now);
      await removeOldLogs(database, config.buildLogs);
      await kubernetes.sweepOrphans();
    },
  });
  await sweep.start();

  return {
    app,
    url,
    providers,
    async stop() {
      readiness.stop();
      sweep.stop();
      // The listener first, so that nobody is let in to a server that no longer works.
      await app.close();
      await gateway?.close();
      await stun?.close();
      await jobs.stop();
      await bus.close();
      await endWatch();
      for (const provider of providers.values()) await provider.close();
      await kubernetes.close();
    },
  };
}
