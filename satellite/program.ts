import { readFileSync, statSync } from 'node:fs';
import type { Server as HttpsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { type CallError, makeClient } from '@cde/api/client.ts';
import { type SatelliteCondition, type SatelliteWeb, watchSatelliteUsers } from '@cde/api/satellites.ts';
import { watchRevocations } from '@cde/tunnel/auth/revocation.ts';
import type { Clock } from '@cde/tunnel/clock.ts';
import websocket from '@fastify/websocket';
import Fastify, { type FastifyInstance, LogController } from 'fastify';
import pretty from 'pino-pretty';
import { serveMetrics } from './metrics.ts';
import type { PortGateway } from './ports/gateway.ts';
import { makeServerFactory } from './ports/interceptor.ts';
import { makeSatellitePorts } from './ports/ports.ts';
import { joinServer, type Report } from './registration.ts';
import { openLoopbackListener } from './relay/loopback-listener.ts';
import { relayPlugin, websocketOptions } from './relay/plugin.ts';
import { makeRelay } from './relay/relay.ts';
import type { Settings } from './settings.ts';
import { startStun } from './stun/service.ts';
import { serveTerminals } from './terminals/terminals.ts';

export interface Satellite {
  /** How others reach it. */
  url: string;
  /** Takes nobody new, sends its sessions elsewhere, waits for them within the limit of the settings, ends. */
  stop(): Promise<void>;
}

/** Sessions that are sent away at once would all dial at once, wherever they go. */
const evictWithinMs = 5_000;
const terminalsDisabled = 'This satellite serves no terminals any more.';
/** As at the server: without it Fastify waits for ever for a body that trickles in. Those for ports take their time. */
const requestTimeoutMs = 60_000;
/** A certificate is renewed weeks before its end. */
const certificateCheckMs = 60_000;

/**
 * Starts a satellite: it listens, registers at the server (for as long as that takes), and serves. Rejects
 * with the listener's error, or with that of the certificate's files. `onRejected`: the server does not know it.
 */
export async function startSatellite(options: {
  settings: Settings;
  version: string;
  onRejected: (error: CallError) => void;
  clock?: Clock;
}): Promise<Satellite> {
  const { settings, version } = options;
  const shutdown = new AbortController();
  /** No session is left. */
  const ended = new AbortController();
  let ticketKeys: readonly string[] = [];
  let id: string | null = null;
  /** What browsers are served, and the origin of the pages whose terminals are. */
  let web: SatelliteWeb | null = null;
  let dashboard = '';
  let registered = false;
  let stopping = false;
  /** By which this process reaches itself. Null before it listens. */
  let selfUrl: string | null = null;

  const app = Fastify({
    logger: {
      level: settings.logLevel,
      base: null,
      // Short lines for a person, JSON for a pipe; the server's log is the same.
      ...(process.stdout.isTTY && {
        stream: pretty({ ignore: 'pid,hostname', translateTime: 'SYS:HH:MM:ss', sync: true }),
      }),
    },
    logController: new LogController({ disableRequestLogging: true }),
    forceCloseConnections: true,
    requestTimeout: requestTimeoutMs,
    serverFactory: makeServerFactory(
      () => ports,
      settings.tlsCert && settings.tlsKey ? readCertificate(settings.tlsCert, settings.tlsKey) : undefined,
    ),
  });
  const { log } = app;
  const tunnelLog = {
    // Every session says hello and goodbye; that is for whoever looks closely.
    debug: log.debug.bind(log),
    info: log.debug.bind(log),
    warn: log.warn.bind(log),
    error: log.error.bind(log),
  };
  let ports: PortGateway | undefined;
  const relay = makeRelay({
    ticketKeys: () => ticketKeys,
    id: () => id,
    onUser: (userId) => watch.sessionOpened(userId),
    log: tunnelLog,
  });
  const client = makeClient({ url: settings.server, token: settings.token });
  const watch = watchRevocations({
    users: relay.users,
    poll: async (users, signal) =>
      (await client.call(watchSatelliteUsers, { body: { users }, signal })).endUsers,
    revoke: relay.endUser,
    signal: ended.signal,
    ...(options.clock && { clock: options.clock }),
  });
  ports = makeSatellitePorts({
    client,
    portHost: () => web?.portHost ?? null,
    isDraining: () => relay.draining,
    selfUrl: () => selfUrl,
    trustProxy: settings.trustProxy,
    log: tunnelLog,
  });
  await app.register(websocket, { options: websocketOptions });
  await app.register(relayPlugin, { relay });
  const terminals = serveTerminals(app, {
    client,
    isEnabled: () => web !== null,
    dashboard: () => dashboard,
    isDraining: () => relay.draining,
    selfUrl: () => selfUrl,
    signal: ended.signal,
    log: tunnelLog,
    ...(options.clock && { clock: options.clock }),
  });
  app.get('/healthz', async () => ({ status: 'ok' }));
  app.get('/readyz', (_request, reply) => {
    if (registered && !relay.draining) return reply.send({ status: 'ready' });
    const why = registered ? 'It is being emptied.' : 'It has not registered at the server yet.';
    return reply.code(503).send({ code: 'satellite-not-ready', message: why });
  });

  const delay = monitorEventLoopDelay({ resolution: 10 });
  delay.enable();
  let last = { at: performance.now(), bytes: 0 };
  const condition = (): SatelliteCondition => {
    if (stopping) return 'stopping';
    if (!relay.draining) return 'serving';
    return relay.stats().sessions === 0 ? 'drained' : 'draining';
  };
  function report(): Report {
    const stats = relay.stats();
    const now = { at: performance.now(), bytes: stats.bytesToAgents + stats.bytesToClients };
    const seconds = Math.max((now.at - last.at) / 1000, 0.001);
    const bytesPerSecond = Math.round((now.bytes - last.bytes) / seconds);
    last = now;
    const loopDelayMs = Math.max(0, delay.percentile(99) / 1e6 - 10);
    delay.reset();
    return {
      condition: condition(),
      load: {
        sessions: stats.sessions,
        agents: stats.workspaces,
        bytesPerSecond,
        memoryBytes: process.memoryUsage.rss(),
        loopDelayMs: Number.isFinite(loopDelayMs) ? Math.round(loopDelayMs * 10) / 10 : 0,
      },
      users: relay.users(),
    };
  }

  /** True when that changed anything. */
  function applyDrain(drain: boolean): boolean {
    if (stopping || drain === relay.draining) return false;
    if (!drain) {
      log.info('serving again');
      relay.reopen();
      return true;
    }
    log.info({ sessions: relay.stats().sessions }, 'draining, as an administrator wants');
    ports?.closeAll();
    void relay.drain().then(() => relay.draining && !stopping && log.info('drained: no session is left'));
    relay.evict(evictWithinMs);
    return true;
  }

  await app.listen({ host: settings.listen.host, port: settings.listen.port });
  const { port } = app.server.address() as AddressInfo;
  const loopback = settings.tlsCert ? await openLoopbackListener(app.server) : null;
  selfUrl = loopback?.url ?? selfUrlOf(settings.listen.host, port);
  const url = settings.listen.port === 0 ? settings.url.replace(/:0$/, `:${port}`) : settings.url;
  const infoLog = { ...tunnelLog, info: log.info.bind(log) };
  const stun = await startStun({
    udp: settings.udp,
    announce: settings.udpAddress,
    listen: { host: settings.listen.host, port },
    url,
    log: infoLog,
  });
  const endMetrics =
    settings.metricsListen &&
    (await serveMetrics(settings.metricsListen, relay, stun.server, { terminals, ports }));
  const endWatch = watchCertificate(app, settings);
  log.info({ url, stun: stun.address, version }, 'satellite listens');

  const joined = joinServer({
    client,
    identity: { url, stun: stun.address, version, region: settings.region },
    report,
    signal: shutdown.signal,
    log: infoLog,
    onManifest(manifest) {
      ({ ticketKeys, web, dashboard } = manifest);
      id = manifest.id ?? null;
      registered = true;
      if (!web) terminals.evictAll(terminalsDisabled);
      log.info({ name: manifest.name, region: manifest.region }, 'satellite is registered');
      applyDrain(manifest.drain);
    },
    onOrders(orders) {
      ({ ticketKeys, web, dashboard } = orders);
      if (!web) terminals.evictAll(terminalsDisabled);
      for (const userId of orders.endUsers) relay.endUser(userId);
      // Said at once: until then nobody is sent here, or still is.
      if (applyDrain(orders.drain)) void joined.then(({ reportNow }) => reportNow());
    },
    onRejected: options.onRejected,
    ...(options.clock && { clock: options.clock }),
  });

  return {
    url,
    async stop() {
      stopping = true;
      shutdown.abort();
      const { reportNow } = await joined;
      // The server names it to nobody from now on: those who are sent away do not come back.
      await reportNow();
      const emptied = relay.drain();
      ports?.close();
      const limitMs = settings.drainSeconds * 1000;
      relay.evict(Math.min(evictWithinMs, limitMs / 2));
      const timer = AbortSignal.timeout(limitMs);
      await Promise.race([
        emptied,
        new Promise((resolve) => timer.addEventListener('abort', resolve, { once: true })),
      ]);
      ended.abort();
      endWatch();
      delay.disable();
      await endMetrics?.();
      await stun.close();
      loopback?.close();
      await app.close();
    },
  };
}

function selfUrlOf(host: string, port: number): string {
  if (host === '0.0.0.0' || host === '::') return `http://127.0.0.1:${port}`;
  return `http://${host.includes(':') ? `[${host}]` : host}:${port}`;
}

function readCertificate(cert: string, key: string): { cert: Buffer; key: Buffer } {
  return { cert: readFileSync(cert), key: readFileSync(key) };
}

/** Takes a certificate that was renewed in its files, without a restart. */
function watchCertificate(app: FastifyInstance, { tlsCert, tlsKey }: Settings): () => void {
  if (!tlsCert || !tlsKey) return () => {};
  const stamp = () => `${statSync(tlsCert).mtimeMs} ${statSync(tlsKey).mtimeMs}`;
  let last = stamp();
  const timer = setInterval(() => {
    try {
      const now = stamp();
      if (now === last) return;
      (app.server as unknown as HttpsServer).setSecureContext(readCertificate(tlsCert, tlsKey));
      last = now;
      app.log.info('the certificate was renewed');
    } catch (error) {
      // Half written, perhaps; the next look finds it whole.
      app.log.warn({ why: (error as Error).message }, 'the renewed certificate cannot be used');
    }
  }, certificateCheckMs);
  return () => clearInterval(timer);
}
