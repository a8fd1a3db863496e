import type { AddressInfo } from 'node:net';
import { listenUrl } from '@cde/api/addresses.ts';
import { type CallError, makeClient } from '@cde/api/client.ts';
import {
  type SatelliteCondition,
  type SatelliteManifest,
  type SatelliteWeb,
  watchSatelliteUsers,
} from '@cde/api/satellites.ts';
import { watchRevocations } from '@cde/tunnel/auth/revocation.ts';
import type { Clock } from '@cde/tunnel/clock.ts';
import websocket from '@fastify/websocket';
import Fastify, { type FastifyInstance, LogController } from 'fastify';
import pretty from 'pino-pretty';
import { readCertificate, watchCertificate } from './certificate.ts';
import { makeLoadMeter } from './load.ts';
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
import { serveTerminals, type Terminals } from './terminals/terminals.ts';

export interface Satellite {
  /** Its public URL. */
  url: string;
  /** Drains: accepts nothing new, moves its sessions elsewhere for at most the configured time, then stops. */
  stop(): Promise<void>;
}

/** Sessions evicted all at once would reconnect all at once. */
const evictWithinMs = 5_000;
const terminalsDisabled = 'This satellite does not serve terminals.';
/** Fastify would wait forever for a slow request body. Requests for ports are exempt (`allowsSlowBody`). */
const requestTimeoutMs = 60_000;

/** What the server has told the satellite. */
interface ServerState {
  registered: boolean;
  id: string | null;
  name: string | null;
  ticketKeys: readonly string[];
  /** What it serves to browsers; null: nothing. */
  web: SatelliteWeb | null;
  /** The origin of the pages that may open terminals. */
  dashboard: string;
}

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
  const state: ServerState = {
    registered: false,
    id: null,
    name: null,
    ticketKeys: [],
    web: null,
    dashboard: '',
  };
  let stopping = false;
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
  const applyDrain = makeDrainSwitch({ app, relay, ports: gateway, isStopping: () => stopping });
  const condition = (): SatelliteCondition => {
    if (stopping) return 'stopping';
    if (!relay.draining) return 'serving';
    return relay.stats().sessions === 0 ? 'drained' : 'draining';
  };
  const joined = joinServer({
    client,
    identity: { url, stun: stun.address, version, region: settings.region },
    report: () => ({ condition: condition(), load: loadMeter.sample(), users: relay.users() }),
    signal: shutdown.signal,
    log: infoLog,
    onManifest(manifest) {
      applySettings(state, manifest, terminals);
      state.id = manifest.id ?? null;
      state.name = manifest.name;
      state.registered = true;
      log.info({ name: manifest.name, region: manifest.region }, 'satellite is registered');
      applyDrain(manifest.drain);
    },
    onOrders(orders) {
      applySettings(state, orders, terminals);
      for (const userId of orders.endUsers) relay.endUser(userId);
      // Reported at once, because the server directs clients by it.
      if (applyDrain(orders.drain)) void joined.then(({ reportNow }) => reportNow());
    },
    onRejected: options.onRejected,
    ...clock,
  });

  return {
    url,
    async stop() {
      stopping = true;
      shutdown.abort();
      const { reportNow } = await joined;
      // First, so that the server stops naming this satellite and evicted clients do not come back.
      await reportNow();
      const drained = relay.drain();
      gateway.close();
      const limitMs = settings.drainSeconds * 1000;
      relay.evict(Math.min(evictWithinMs, limitMs / 2));
      const timer = AbortSignal.timeout(limitMs);
      await Promise.race([
        drained,
        new Promise((resolve) => timer.addEventListener('abort', resolve, { once: true })),
      ]);
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

function applySettings(
  state: ServerState,
  { ticketKeys, web, dashboard }: Pick<SatelliteManifest, 'ticketKeys' | 'web' | 'dashboard'>,
  terminals: Terminals,
): void {
  Object.assign(state, { ticketKeys, web, dashboard });
  if (!web) terminals.evictAll(terminalsDisabled);
}

/** Starts or ends draining as an administrator asked. The returned function returns true if that changed anything. */
function makeDrainSwitch(options: {
  app: FastifyInstance;
  relay: Relay;
  ports: PortGateway;
  isStopping: () => boolean;
}): (drain: boolean) => boolean {
  const { relay, ports, isStopping } = options;
  const { log } = options.app;
  return (drain) => {
    if (isStopping() || drain === relay.draining) return false;
    if (!drain) {
      log.info('serving again');
      relay.reopen();
      return true;
    }
    log.info({ sessions: relay.stats().sessions }, 'draining on request of an administrator');
    ports.closeAll();
    void relay.drain().then(() => {
      if (relay.draining && !isStopping()) log.info('drained: no sessions left');
    });
    relay.evict(evictWithinMs);
    return true;
  };
}

function selfUrlOf(host: string, port: number): string {
  return listenUrl({ host: host === '0.0.0.0' || host === '::' ? '127.0.0.1' : host, port });
}
