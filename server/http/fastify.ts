import { randomUUID } from 'node:crypto';
import { makeServerFactory } from '@cde/satellite/ports/interceptor.ts';
import Fastify, { type FastifyBaseLogger, type FastifyInstance, LogController } from 'fastify';
import type { Config } from '../config.ts';
import type { Logger } from '../log.ts';
import { maxParamLength, protocolErrorOptions } from './protocol-errors.ts';
import { bodyLimit } from './serve.ts';

/** Longer than 2 MiB take on a line of 0.5 Mbit/s. */
const requestTimeoutMs = 60_000;
/** Loading plugins takes a second or two, but an overloaded machine must not fail to start. */
const pluginTimeoutMs = 60_000;

/** An empty Fastify instance with the server's limits. */
export function makeFastify({ config, log }: { config: Readonly<Config>; log: Logger }): FastifyInstance {
  const app: FastifyInstance = Fastify({
    // Undefined until the ports plugin has loaded, which is before anything listens.
    serverFactory: makeServerFactory(() => app.portGateway),
    loggerInstance: log as FastifyBaseLogger,
    // Metrics count requests, and errors are logged with the request id; a log line per request would be noise.
    logController: new LogController({ disableRequestLogging: true }),
    genReqId: () => randomUUID(),
    requestIdHeader: false,
    bodyLimit,
    // For headers and body. By default Fastify waits indefinitely for a body that arrives slowly.
    requestTimeout: requestTimeoutMs,
    pluginTimeout: pluginTimeoutMs,
    trustProxy: config.trustProxy ? config.trustProxy.split(',').map((address) => address.trim()) : false,
    // On close, requests in progress can finish and idle connections are closed.
    forceCloseConnections: 'idle',
    routerOptions: { maxParamLength },
    ...protocolErrorOptions,
  });
  return app;
}
