import { relayPlugin } from '@cde/satellite/relay/plugin.ts';
import { makeRelay, type Relay } from '@cde/satellite/relay/relay.ts';
import { type StunService, startStun } from '@cde/satellite/stun/service.ts';
import { embeddedSatellite } from '@cde/tunnel/auth/ticket.ts';
import type { FastifyInstance } from 'fastify';
import fp from 'fastify-plugin';
import { loggerOf } from '../log.ts';
import { type ConnectionPolicy, makeConnectionPolicy } from './policy.ts';
import { makeSatelliteRegistry, type SatelliteLocation, type SatelliteRegistry } from './registry.ts';
import { satelliteRoutes } from './routes.ts';
import { makeSatelliteStore, type SatelliteStore } from './store.ts';

declare module 'fastify' {
  interface FastifyInstance {
    readonly satellites: SatelliteRegistry & {
      store: SatelliteStore;
      /** The URLs of all satellites, embedded and registered. */
      listUrls(): Promise<string[]>;
    };
    /** Which paths and regions sessions can use. */
    readonly connectionPolicy: ConnectionPolicy;
    /** The relay of the embedded satellite. */
    readonly relay: Relay;
    /** Calls back with the workspace's id when an agent disconnects from the relay. */
    onAgentDisconnect(listener: (workspaceId: string) => void): void;
  }
}

/** The embedded satellites: one per replica. */
function embeddedSatellites(app: FastifyInstance, stunAddress: () => string | undefined) {
  const { config, replica } = app;
  const toLocations = (urls: string[]): SatelliteLocation[] =>
    urls.map((url, index) => {
      const stun = index === 0 ? stunAddress() : undefined;
      return {
        name: index === 0 ? embeddedSatellite : `${embeddedSatellite}-${new URL(url).host}`,
        url,
        region: config.region,
        // The STUN servers of all replicas give the same answer, so one is enough.
        ...(stun && { stun }),
      };
    });
  return {
    async forAgents() {
      const urls = await replica.urls();
      // An agent in another network may not reach a replica by its own address. The access URL leads to the only replica,
      // but with several it would lead to any of them, and clients to another.
      const alternatives = config.replicaUrl !== undefined && urls.length === 1 ? [config.accessUrl] : [];
      return toLocations([...urls, ...alternatives]);
    },
    // Agents listen at every replica, so the access URL can lead a client to any of them.
    forClients: async () => toLocations(config.replicaUrl ? [config.accessUrl] : await replica.urls()),
  };
}

/** Registered and embedded satellites, and the relay of the embedded one. */
export const satellitesPlugin = fp(
  async (app) => {
    const { config, database, keys, now } = app;
    const log = loggerOf(app);
    let stun: StunService | null = null;
    app.onStart(async () => {
      // The access URL of a cluster can lead anywhere, but hardly through a path for UDP.
      const udp = config.udp ?? (config.replicaUrl && !config.udpAddress ? 'off' : undefined);
      const url = app.listenUrl();
      stun = await startStun({
        udp,
        announce: config.udpAddress,
        listen: { host: config.listen.host, port: Number(new URL(url).port) },
        url: config.loopback ? url : config.accessUrl,
        log,
      });
    });
    app.addHook('onClose', async () => stun?.close());

    const store = makeSatelliteStore({
      database,
      now,
      ownPortHost: config.portHost === null ? null : `*${config.portHost}`,
    });
    const embedded = embeddedSatellites(app, () => stun?.address ?? undefined);
    app.decorate('satellites', {
      ...makeSatelliteRegistry({ store, embedded }),
      store,
      listUrls: async () =>
        [...(await embedded.forAgents()), ...(await store.listServing())].map(({ url }) => url),
    });
    app.decorate('connectionPolicy', makeConnectionPolicy({ database, paths: config.paths }));
    satelliteRoutes(app, { store, keys, config, revocation: app.accessRevocation });

    const disconnectListeners: ((workspaceId: string) => void)[] = [];
    app.decorate('onAgentDisconnect', (listener) => void disconnectListeners.push(listener));
    const relay = makeRelay({
      ticketKeys: [keys.tickets.publicKey],
      id: () => embeddedSatellite,
      name: () => embeddedSatellite,
      // The relay logs the start and end of every session, which is too much for this log's info level.
      log: {
        debug: log.debug.bind(log),
        info: log.debug.bind(log),
        warn: log.warn.bind(log),
        error: log.error.bind(log),
      },
      onPresence: (workspaceId, isConnected) => {
        if (!isConnected) for (const listener of disconnectListeners) listener(workspaceId);
      },
    });
    app.decorate('relay', relay);
    await app.register(relayPlugin, { relay });
  },
  { name: 'satellites', dependencies: ['database', 'http', 'identity', 'access-revocation'] },
);
