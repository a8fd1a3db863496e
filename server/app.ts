import { randomUUID } from 'node:crypto';
import { setTimeout } from 'node:timers/promises';
import { ApiError } from '@cde/api/errors.ts';
import { sessionKeyHeader } from '@cde/api/identity.ts';
import { Problem } from '@cde/api/problem.ts';
import type { PortGateway } from '@cde/satellite/ports/gateway.ts';
import { makeServerFactory } from '@cde/satellite/ports/interceptor.ts';
import { relayPlugin, websocketOptions } from '@cde/satellite/relay/plugin.ts';
import type { Relay } from '@cde/satellite/relay/relay.ts';
import swagger from '@fastify/swagger';
import swaggerUi from '@fastify/swagger-ui';
import websocket from '@fastify/websocket';
import Fastify, { type FastifyBaseLogger, type FastifyInstance, LogController } from 'fastify';
import { jsonSchemaTransform } from 'fastify-type-provider-zod';
import { z } from 'zod';
import type { Config } from './config.ts';
import { accessRevocationRoutes, makeAccessRevocation } from './connections/access-revocation.ts';
import { makeConnectionAudit } from './connections/connection-audit.ts';
import { netcheckRoutes } from './connections/netcheck.ts';
import { connectionRoutes } from './connections/routes.ts';
import { satelliteTerminalRoutes } from './connections/satellite-terminals.ts';
import { makeSessionOpener } from './connections/session-opener.ts';
import { makeTickets } from './connections/tickets.ts';
import type { Database } from './database/pool.ts';
import type { Bus } from './events/bus.ts';
import { makeHub } from './events/hub.ts';
import { maxParamLength, protocolErrorOptions, rejectWhileClosing } from './http/protocol-errors.ts';
import { installHttp } from './http/serve.ts';
import { trackUnusedSockets } from './http/unused-sockets.ts';
import { makeAuth } from './identity/auth.ts';
import { isAllowed } from './identity/authorize.ts';
import type { Keys } from './identity/keys.ts';
import { allowedOrigins } from './identity/origins.ts';
import { identityRoutes } from './identity/routes.ts';
import { sessionCookieName } from './identity/sessions.ts';
import type { Kubernetes } from './kubernetes/kubernetes.ts';
import type { Logger } from './log.ts';
import { makePortLookup } from './ports/authorize.ts';
import { makePorts } from './ports/ports.ts';
import { portRoutes } from './ports/routes.ts';
import { portOpenRoutes, portVisitRoutes, siteOf } from './ports/visits.ts';
import type { Provider } from './providers/provider.ts';
import { makeConnectionPolicy } from './satellites/policy.ts';
import { makeSatelliteRegistry, type SatelliteLocation } from './satellites/registry.ts';
import { satelliteRoutes } from './satellites/routes.ts';
import { makeSatelliteStore } from './satellites/store.ts';
import { installMetrics } from './telemetry/metrics.ts';
import { templateRoutes } from './templates/routes.ts';
import { docsPolicy, registerWeb } from './web.ts';
import { makeAgents } from './workspaces/agents.ts';
import { workspaceRoutes } from './workspaces/routes.ts';
import { makeViews } from './workspaces/views.ts';

export interface AppOptions {
  config: Config;
  database: Database;
  keys: Keys;
  bus: Bus;
  relay: Relay;
  log: Logger;
  providers: ReadonlyMap<string, Pick<Provider, 'purgeHomes' | 'describeHome'>>;
  /** The embedded satellites, as agents and as clients reach them: the same places, perhaps by other names. */
  satellites: Record<'forAgents' | 'forClients', () => Promise<SatelliteLocation[]>>;
  /** As Readiness's; without, it is ready at once. */
  waitsFor?: () => string | null;
  kubernetes: Pick<Kubernetes, 'dryRun' | 'register'>;
  now: () => Date;
  /** Waits; tests let time pass instead. */
  sleep?: (ms: number) => Promise<void>;
  /** Where the built dashboard lies; without it no pages are served. */
  web?: string;
  /** Replies are checked against the contract: tests and development. */
  checkReplies?: boolean;
}

/** Queries that may wait for a connection of the pool before requests are turned away. */
const maxWaitingQueries = 500;

/** Once seen over https, browsers never ask the dashboard over http, where cookies could be read and planted. */
const strictTransport = 'max-age=31536000';

/** Longer than 2 MiB take on a line of 0.5 Mbit/s. */
const requestTimeoutMs = 60_000;

const Health = z.object({ status: z.enum(['ok', 'ready', 'starting']), waitsFor: z.string().optional() });
const healthSchema = (summary: string) => ({
  summary,
  tags: ['health'],
  security: [],
  response: { 200: Health, 503: z.union([Health, ApiError]), '4xx': ApiError, '5xx': ApiError },
});

/** Composes the HTTP side of the server. Nothing listens yet; `inject()` works. */
export async function makeApp(options: AppOptions): Promise<FastifyInstance> {
  const { config, database, keys, bus, relay, log, providers, now } = options;
  let ports: PortGateway | undefined;
  const app = Fastify({
    serverFactory: makeServerFactory(() => ports),
    loggerInstance: log as FastifyBaseLogger,
    // A line for each request is noise at this size; metrics count them, and errors are logged with their id.
    logController: new LogController({ disableRequestLogging: true }),
    genReqId: () => randomUUID(),
    requestIdHeader: false,
    bodyLimit: 2 * 1024 * 1024,
    // Headers and body have to be here by then. Without it Fastify waits for ever for a body that trickles in.
    requestTimeout: requestTimeoutMs,
    trustProxy: config.trustProxy ? config.trustProxy.split(',').map((address) => address.trim()) : false,
    // A request that is under way when the server stops may end; idle connections are closed.
    forceCloseConnections: 'idle',
    routerOptions: { maxParamLength },
    ...protocolErrorOptions,
  });
  rejectWhileClosing(app);
  const gate = makeAuth({
    database,
    now,
    origins: () => allowedOrigins(config),
    cookieName: sessionCookieName(config),
  });
  installHttp(app, { auth: gate, checkReplies: options.checkReplies ?? false });
  // Rather a clear no at once than a queue that makes everybody wait: each waiting query is a waiting person.
  app.addHook('onRequest', async () => {
    if (database.pool.waitingCount > maxWaitingQueries)
      throw new Problem('server-busy', 'The server is at its limit at the moment.', {
        hint: 'Try again in a few seconds.',
        retryAfter: 2,
      });
  });
  app.addHook('onSend', async (request, reply) => {
    reply.header('x-request-id', request.id);
    reply.header('x-content-type-options', 'nosniff');
    if (config.accessUrl.startsWith('https:')) reply.header('strict-transport-security', strictTransport);
    // What one person may see is kept by no cache, the browser's own included.
    if (request.url.startsWith('/api/v1/') && !reply.hasHeader('cache-control'))
      reply.header('cache-control', 'no-store');
  });
  app.setNotFoundHandler((request) => {
    throw new Problem(
      'route-not-found',
      `There is nothing at ${request.method} ${request.url.split('?')[0]}.`,
      {
        hint: 'The API is described at /api/docs.',
      },
    );
  });
  const telemetry = installMetrics(app, { database, log });

  await app.register(websocket, { options: websocketOptions });
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'cde',
        version: '1',
        description:
          'The control plane of cde. Errors are `{code, message, detail, hint}`; the codes are stable.',
      },
      components: {
        securitySchemes: {
          token: { type: 'http', scheme: 'bearer', description: 'An API token: cde token create' },
          session: { type: 'apiKey', in: 'cookie', name: sessionCookieName(config) },
          sessionKey: { type: 'apiKey', in: 'header', name: sessionKeyHeader },
        },
      },
      security: [{ token: [] }, { session: [], sessionKey: [] }],
    },
    transform: jsonSchemaTransform,
  });
  await app.register(swaggerUi, {
    routePrefix: '/api/docs',
    staticCSP: docsPolicy,
    // Else a page that is not on localhost asks a service on the internet about its document.
    uiConfig: {
      validatorUrl: null,
      // Runs in the browser: "Try it out" sends the session key, as the dashboard does.
      requestInterceptor: (request) => {
        const { localStorage } = globalThis as unknown as {
          localStorage: { getItem(name: string): string | null };
        };
        const key = localStorage.getItem('cde-session-key');
        const headers = request.headers as Record<string, string>;
        if (key) headers['x-cde-session-key'] = key;
        return request;
      },
    },
  });
  app.get('/api/v1/openapi.json', { schema: { hide: true } }, async () => app.swagger());
  app.get('/healthz', { schema: healthSchema('Whether the process lives') }, async () => ({ status: 'ok' }));
  app.get('/readyz', { schema: healthSchema('Whether it takes requests') }, async (_request, reply) => {
    await database.pool.query('SELECT 1');
    const waitsFor = options.waitsFor?.() ?? null;
    return waitsFor === null ? { status: 'ready' } : reply.code(503).send({ status: 'starting', waitsFor });
  });

  const satelliteStore = makeSatelliteStore({
    database,
    now,
    ownPortHost: config.portHost === null ? null : `*${config.portHost}`,
  });
  const satellites = makeSatelliteRegistry({ store: satelliteStore, embedded: options.satellites });
  const policy = makeConnectionPolicy({ database, paths: config.paths });
  const issueTicket = makeTickets({ database, keys, now, satellites: satellites.forClients, policy });
  identityRoutes(app, { config, database, keys, bus, now, sleep: options.sleep ?? setTimeout });
  templateRoutes(app, { database, dryRun: options.kubernetes.dryRun, now });
  workspaceRoutes(app, {
    database,
    bus,
    now,
    providers,
    foreignUpdates: config.foreignUpdates === 'on',
    agents: makeAgents({ database, bus, now, keys, providers, satellites: satellites.forAgents, policy }),
  });
  options.kubernetes.register(app, telemetry.registry);
  const accessRevocation = makeAccessRevocation({ database, bus, log });
  satelliteRoutes(app, { store: satelliteStore, keys, config, revocation: accessRevocation });
  accessRevocation.watch({
    users: relay.users,
    end(userId) {
      log.info({ userId }, 'the sessions of a suspended or deleted user are ended');
      relay.endUser(userId);
    },
  });
  accessRevocationRoutes(app, accessRevocation);
  const openSession = makeSessionOpener(app, issueTicket);
  netcheckRoutes(app, { keys, satellites: satellites.forClients, now });
  const connectionAudit = makeConnectionAudit({ database, now, log });
  connectionRoutes(app, { issueTicket, openSession, audit: connectionAudit });
  satelliteTerminalRoutes(app, {
    database,
    keys,
    now,
    store: satelliteStore,
    forAgents: satellites.forAgents,
    policy,
    issueTicket,
    config,
    audit: connectionAudit,
  });
  const access = makePortLookup(database, now);
  portRoutes(app, { access, config, database, now, policy, satellites: satelliteStore.listWebSatellites });
  const { gateway, routeAt, ...openers } = makePorts({
    access,
    config,
    database,
    gate,
    keys,
    openSession,
    sites: async () =>
      (await satelliteStore.listWebSatellites()).flatMap((one) => siteOf(one, config.accessUrl) ?? []),
    log,
    now,
  });
  ports = gateway;
  portOpenRoutes(app, openers);
  portVisitRoutes(app, {
    judge: routeAt,
    webSatellite: satelliteStore.findWebSatellite,
    issueTicket,
    accessUrl: config.accessUrl,
  });
  const hub = makeHub(app, {
    bus,
    log,
    reader: makeViews(database, now, (actor, ownerId) => isAllowed(actor, 'workspace:read', { ownerId })),
  });
  await app.register(relayPlugin, { relay });
  if (options.web)
    await registerWeb(app, { folder: options.web, satellites: () => satelliteStore.listWebSatellites() });
  const endUnused = trackUnusedSockets(app.server);
  app.addHook('preClose', async () => {
    hub.close();
    ports?.close();
    telemetry.close();
    accessRevocation.close();
    endUnused();
  });
  return app;
}
