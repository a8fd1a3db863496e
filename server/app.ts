import { randomUUID } from 'node:crypto';
import swagger from '@fastify/swagger';
import swaggerUi from '@fastify/swagger-ui';
import websocket from '@fastify/websocket';
import Fastify, { type FastifyInstance } from 'fastify';
import { jsonSchemaTransform } from 'fastify-type-provider-zod';
import type { Config } from './config.ts';
import type { Database } from './database/pool.ts';
import { Problem } from './errors.ts';
import { installHttp } from './http/serve.ts';
import { makeGate } from './identity/gate.ts';
import { identityRoutes } from './identity/routes.ts';
import type { Keys } from './keys.ts';
import { templateRoutes } from './templates/routes.ts';

export interface AppOptions {
  config: Config;
  database: Database;
  keys: Keys;
  now?: () => Date;
  /** Pino options, or false for silence. */
  logger?: boolean | object;
  checkReplies?: boolean;
}

/** Composes the HTTP side of the server. Nothing listens yet; `inject()` works. */
export async function makeApp({
  config,
  database,
  keys: _keys,
  now = () => new Date(),
  logger = false,
  checkReplies = false,
}: AppOptions): Promise<FastifyInstance> {
  const app = Fastify({
    logger,
    genReqId: () => randomUUID(),
    requestIdHeader: false,
    bodyLimit: 2 * 1024 * 1024,
    trustProxy: config.trustProxy ? config.trustProxy.split(',').map((address) => address.trim()) : false,
    // A request that is under way when the server stops may end; new ones are refused by the listener.
    forceCloseConnections: 'idle',
  });
  const gate = makeGate({ database, now, origins: () => [new URL(config.accessUrl).origin] });
  installHttp(app, { gate, checkReplies });
  app.addHook('onSend', async (request, reply) => {
    reply.header('x-request-id', request.id);
  });
  app.setNotFoundHandler((request) => {
    throw new Problem(
      'route-not-found',
      `There is nothing at ${request.method} ${request.url.split('?')[0]}.`,
      { hint: 'The API is described at /api/docs.' },
    );
  });
  await app.register(websocket, { options: { maxPayload: 1024 * 1024, perMessageDeflate: false } });
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'cde',
        version: '1',
        description:
          'The control plane of cde. Errors are `{code, message, detail, hint}`; the codes are stable.',
      },
    },
    transform: jsonSchemaTransform,
  });
  await app.register(swaggerUi, { routePrefix: '/api/docs', staticCSP: true });
  app.get('/api/v1/openapi.json', { schema: { hide: true } }, async () => app.swagger());
  app.get('/healthz', { schema: { hide: true } }, async () => ({ status: 'ok' }));
  app.get('/readyz', { schema: { hide: true } }, async () => {
    await database.pool.query('SELECT 1');
    return { status: 'ready' };
  });
  identityRoutes(app, { config, database, now });
  templateRoutes(app, { database, now });
  return app;
}
