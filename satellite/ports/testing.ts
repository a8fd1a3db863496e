import { once } from 'node:events';
import type { RequestListener, Server } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { Problem } from '@cde/api/problem.ts';
import { silentLog } from '@cde/tunnel/log.ts';
import type { BodyRate } from './bodies.ts';
import { makePortGateway, type PortDecision, type RequestHead } from './gateway.ts';
import { makeServerFactory } from './interceptor.ts';
import type { PortTarget } from './sessions.ts';

type Forward = Extract<PortDecision<PortTarget>, { kind: 'forward' }>;

/** The proxy in front of a program on this machine, without server or agent. Allows every request. */
export async function makeTestProxy(options: {
  programPort: () => number;
  visit: () => Omit<Forward['visit'], 'port'>;
  user?: (request: RequestHead) => string | undefined;
  trustProxy?: string;
  bodyRate?: BodyRate;
}) {
  const gateway = makePortGateway<PortTarget>({
    authorizers: [
      (request) => async () => ({
        kind: 'forward',
        port: { workspaceId: 'w', port: options.programPort() },
        path: request.url ?? '/',
        visit: { ...options.visit(), port: options.programPort() },
        user: options.user?.(request),
        isStillAllowed: async () => true,
      }),
    ],
    sessions: {
      connect: async ({ port }) => ({ stream: connect(port, '127.0.0.1'), opened: Promise.resolve() }),
      closeAll() {},
      close() {},
    },
    trustProxy: options.trustProxy ?? '',
    ...(options.bodyRate && { bodyRate: options.bodyRate }),
    toProblem: (error) => (error instanceof Problem ? error : new Problem('internal', String(error))),
    log: silentLog,
  });
  const fallback: RequestListener = (_, response) => void response.end();
  const server = makeServerFactory(() => gateway)(fallback, {});
  server.on('upgrade', () => {});
  const port = await listen(server);
  return {
    port,
    gateway,
    close() {
      gateway.close();
      stop(server);
    },
  };
}

export async function listen(server: Server): Promise<number> {
  await once(server.listen(0, '127.0.0.1'), 'listening');
  return (server.address() as AddressInfo).port;
}

export function stop(server: Server): void {
  server.closeAllConnections();
  server.close();
}
