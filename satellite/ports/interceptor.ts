import {
  createServer,
  type IncomingMessage,
  type RequestListener,
  type Server,
  type ServerResponse,
} from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import type { Duplex } from 'node:stream';
import type { FastifyServerOptions } from 'fastify';

/** Sees every request before Fastify's routes. Its methods return true if they have handled it. */
export interface RequestInterceptor {
  request(request: IncomingMessage, response: ServerResponse): boolean;
  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): boolean;
  /** True if the request timeout does not apply to this connection. */
  allowsSlowBody(socket: Duplex): boolean;
}

/**
 * A Fastify `serverFactory` that offers each request to the interceptor first. Routes would not do: on a port's host name
 * every path belongs to the workspace, so none of our routes may match there.
 */
export function makeServerFactory(
  interceptor: () => RequestInterceptor | undefined,
  tls?: { cert: Buffer; key: Buffer },
) {
  return (handler: RequestListener, options: FastifyServerOptions): Server => {
    const listener: RequestListener = (request, response) => {
      if (!interceptor()?.request(request, response)) handler(request, response);
    };
    const server = tls ? (createSecureServer(tls, listener) as unknown as Server) : createServer(listener);
    // As Fastify configures servers that it creates itself.
    server.keepAliveTimeout = options.keepAliveTimeout ?? 72_000;
    server.requestTimeout = options.requestTimeout ?? 0;
    server.setTimeout(options.connectionTimeout ?? 0);
    const emit = server.emit.bind(server) as (event: string | symbol, ...args: unknown[]) => boolean;
    // Not an event listener: the relay's own upgrade listener would answer the request as well.
    server.emit = (event: string | symbol, ...args: unknown[]): boolean => {
      const [first, socket, head] = args;
      const isHandled =
        event === 'upgrade'
          ? interceptor()?.upgrade(first as IncomingMessage, socket as Duplex, head as Buffer)
          : event === 'clientError' && (first as NodeJS.ErrnoException).code === 'ERR_HTTP_REQUEST_TIMEOUT'
            ? interceptor()?.allowsSlowBody(socket as Duplex)
            : false;
      return isHandled || emit(event, ...args);
    };
    return server;
  };
}
