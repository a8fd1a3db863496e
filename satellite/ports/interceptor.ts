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

/** What looks at every request before the dashboard and its API do. True: it has taken it. */
export interface RequestInterceptor {
  request(request: IncomingMessage, response: ServerResponse): boolean;
  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): boolean;
  /** True for a connection on which a body may take as long as it takes. */
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
    // As Fastify sets those that it makes itself.
    server.keepAliveTimeout = options.keepAliveTimeout ?? 72_000;
    server.requestTimeout = options.requestTimeout ?? 0;
    server.setTimeout(options.connectionTimeout ?? 0);
    const emit = server.emit.bind(server) as (event: string | symbol, ...args: unknown[]) => boolean;
    // All listeners of an event hear it, and the relay's would answer what is not for it.
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
