import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { listenUrl } from '@cde/api/addresses.ts';
import { type CallError, makeClient } from '@cde/api/client.ts';
import { watchSatelliteUsers } from '@cde/api/satellites.ts';
import { watchRevocations } from '@cde/tunnel/auth/revocation.ts';
import type { Clock } from '@cde/tunnel/clock.ts';
import websocket from '@fastify/websocket';
import Fastify, { type FastifyInstance, LogController } from 'fastify';
import pretty from 'pino-pretty';
import { readCertificate, watchCertificate } from './certificate.ts';
import { makeLoadMeter } from './load.ts';
import { evictWithinMs, makeMembership, makeServerState } from './membership.ts';
import { serveMetrics } from './metrics.ts';
import type { PortGateway } from './ports/gateway.ts';
import { makeServerFactory, type RequestInterceptor } from './ports/interceptor.ts';
import { makeSatellitePorts } from './ports/ports.ts';
import { joinServer } from './registration.ts';
import { openLoopbackListener } from './relay/loopback-listener.ts';
import { relayPlugin, websocketOptions } from './relay/plugin.ts';
import { makeRelay, type Relay } from './relay/relay.ts';
import type { Settings } from './settings.ts';
import { startStun } from './stun/service.ts';
import { serveTerminals } from './terminals/terminals.ts';

export interface Satellite {
  /** Its public URL. */
  url: string;
  /** Drains: accepts nothing new, moves its sessions elsewhere for at most the configured time, then stops. */
  stop(): Promise<void>;
}

/** Fastify would wait forever for a slow request body. Requests for ports are exempt (`allowsSlowBody`). */
const requestTimeoutMs = 60_000;

/**
 * Starts a satellite: listens, registers at the server (retrying for as long as it takes) and serves. Rejects if it
 * cannot listen or read its certificate. `onRejected` is called when the server does not accept this satellite.
 */
export async function startSatellite(options: {
  settings: Settings;
  version: string;
  onRejected: (error: CallError) => void;
  clock?: Clock;
}): Promise<Satellite> {
  const { settings, version } = options;
  const clock = options.clock && { clock: options.clock };
  /** Aborted when the satellite begins to stop. */
  const shutdown = new AbortController();
  /** Aborted when its sessions have ended. */
  const ended = new AbortController();
  const state = makeServerState();
  /** The address at which this process reaches itself; null before it listens. */
  let selfUrl: string | null = null;
  let ports: PortGateway | undefined;

  const app = makeApp(settings, () => ports);
  const { log } = app;
  const tunnelLog = {
    debug: log.debug.bind(log),
    // The start and end of each session: too much for the info level.
    info: log.debug.bind(log),
    warn: log.warn.bind(log),
    error: log.error.bind(log),
  };
  const infoLog = { ...tunnelLog, info: log.info.bind(log) };
  const relay = makeRelay({
    ticketKeys: () => state.ticketKeys,
    id: () => state.id,
    name: () => state.name,
    onUser: (userId) => revocations.sessionOpened(userId),
    log: tunnelLog,
  });
  const client = makeClient({ url: settings.server, token: settings.token });
  const revocations = watchRevocations({
    users: relay.users,
    poll: async (users, signal) =>
      (await client.call(watchSatelliteUsers, { body: { users }, signal })).endUsers,
    revoke: relay.endUser,
    signal: ended.signal,
    ...clock,
  });
  const gateway = makeSatellitePorts({
    client,
    portHost: () => state.web?.portHost ?? null,
    isDraining: () => relay.draining,
    selfUrl: () => selfUrl,
    trustProxy: settings.trustProxy,
    log: tunnelLog,
  });
  ports = gateway;
  await app.register(websocket, { options: websocketOptions });
  await app.register(relayPlugin, { relay });
  const terminals = serveTerminals(app, {
    client,
    isEnabled: () => state.web !== null,
    dashboard: () => state.dashboard,
    isDraining: () => relay.draining,
    selfUrl: () => selfUrl,
    signal: ended.signal,
    log: tunnelLog,
    ...clock,
  });
  healthRoutes(app, () => state.registered, relay);

  await app.listen({ host: settings.listen.host, port: settings.listen.port });
  const { port } = app.server.address() as AddressInfo;
  const loopback = settings.tlsCert ? await openLoopbackListener(app.server) : null;
  selfUrl = loopback?.url ?? selfUrlOf(settings.listen.host, port);
  const url = settings.listen.port === 0 ? settings.url.replace(/:0$/, `:${port}`) : settings.url;
  const stun = await startStun({
    udp: settings.udp,
    announce: settings.udpAddress,
    listen: { host: settings.listen.host, port },
    url,
    log: infoLog,
  });
  const closeMetrics =
    settings.metricsListen &&
    (await serveMetrics(settings.metricsListen, relay, stun.server, { terminals, ports: gateway }));
  const stopCertificateWatch = watchCertificate(app, settings);
  log.info({ url, stun: stun.address, version }, 'satellite is listening');

  const loadMeter = makeLoadMeter(relay);
  const membership = makeMembership({ state, relay, ports: gateway, terminals, log: infoLog });
  const joined = joinServer({
    client,
    identity: { url, stun: stun.address, version, region: settings.region },
    report: () => ({
      condition: membership.condition(),
      load: loadMeter.sample(),
      users: relay.users(),
    }),
    signal: shutdown.signal,
    log: infoLog,
    onManifest: membership.registered,
    onOrders(orders) {
      if (membership.apply(orders)) void joined.then(({ reportNow }) => reportNow());
    },
    onRejected: options.onRejected,
    ...clock,
  });

  return {
    url,
    async stop() {
      membership.stop();
      shutdown.abort();
      const { reportNow } = await joined;
      // First, so that the server stops naming this satellite and evicted clients do not come back.
      await reportNow();
      gateway.close();
      await drainWithin(relay, settings.drainSeconds * 1000);
      ended.abort();
      stopCertificateWatch();
      loadMeter.stop();
      await closeMetrics?.();
      await stun.close();
      loopback?.close();
      await app.close();
    },
  };
}

function makeApp(settings: Settings, interceptor: () => RequestInterceptor | undefined): FastifyInstance {
  return Fastify({
    logger: {
      level: settings.logLevel,
      base: null,
      // Short lines for a terminal, JSON otherwise, as the server logs.
      ...(process.stdout.isTTY && {
        stream: pretty({ ignore: 'pid,hostname', translateTime: 'SYS:HH:MM:ss', sync: true }),
      }),
    },
    logController: new LogController({ disableRequestLogging: true }),
    forceCloseConnections: true,
    requestTimeout: requestTimeoutMs,
    serverFactory: makeServerFactory(interceptor, readCertificate(settings)),
  });
}

function healthRoutes(
  app: FastifyInstance,
  isRegistered: () => boolean,
  relay: Pick<Relay, 'draining'>,
): void {
  app.get('/healthz', async () => ({ status: 'ok' }));
  app.get('/readyz', (_request, reply) => {
    if (isRegistered() && !relay.draining) return reply.send({ status: 'ready' });
    const message = isRegistered() ? 'It is draining.' : 'It has not registered at the server yet.';
    return reply.code(503).send({ code: 'satellite-not-ready', message });
  });
}

/** Evicts the relay's sessions, and resolves when they have ended, at the latest after `limitMs`. */
async function drainWithin(relay: Relay, limitMs: number): Promise<void> {
  const drained = relay.drain();
  relay.evict(Math.min(evictWithinMs, limitMs / 2));
  const limit = AbortSignal.timeout(limitMs);
  await Promise.race([drained, once(limit, 'abort')]);
}

function selfUrlOf(host: string, port: number): string {
  return listenUrl({ host: host === '0.0.0.0' || host === '::' ? '127.0.0.1' : host, port });
}
