import { randomBytes } from 'node:crypto';
import { chmodSync, closeSync, mkdirSync, openSync, readdirSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import { connect, type Socket } from 'node:net';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { isLoopbackHost } from '@cde/api/addresses.ts';
import { gatewayServerHost, gatewayStatus } from '@cde/tunnel/network/gateway.ts';
import { relayPaths } from '@cde/tunnel/paths/relay-protocol.ts';

export interface Gateway {
  close(): Promise<void>;
}

/**
 * What an agent needs from its server: reporting, and the relay of the embedded satellite. Everything else is rejected.
 */
const served = ['/api/v1/agent/', `${relayPaths.listen}?`, `${relayPaths.probe}?`];
const isServed = (url = '') => served.some((start) => `${url.split('?')[0]}?`.startsWith(start));

/** From all workspaces together. */
const maxConnections = 4096;
const connectWithinMs = 5000;

export const gatewayFolder = (dataDir: string) => join(dataDir, 'gateway');

const asPort = ({ port, protocol }: URL) => Number(port) || (/s:$/.test(protocol) ? 443 : 80);

/** True if the address is this machine's, which workspaces with a separate network cannot reach. */
function isHere(host: string): boolean {
  if (isLoopbackHost(host)) return true;
  return Object.values(networkInterfaces()).some((each) => each?.some(({ address }) => address === host));
}

/**
 * Opens this server's socket for agents in workspaces with a separate network. tunnel/network/gateway.ts describes the
 * protocol. `own`: HOST:PORT of this server, whose agent routes are served. `reach`: the URLs of replicas and
 * satellites. Only those on this machine are connected, so that workspaces reach nothing else on it.
 */
export async function openGateway(options: {
  dataDir: string;
  /** Fastify's server, which handles the requests. */
  server: Server;
  own: () => string;
  reach: () => Promise<string[]>;
}): Promise<Gateway> {
  const { server: app } = options;
  const folder = gatewayFolder(options.dataDir);
  mkdirSync(folder, { recursive: true, mode: 0o711 });
  // Listing requires r; the parent folder cannot be listed.
  chmodSync(folder, 0o755);
  await sweep(folder);

  const sockets = new Set<Socket>();
  const server = createServer({ keepAliveTimeout: 60_000, requestTimeout: 60_000 });
  server.maxConnections = maxConnections;
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  server.on('request', (request, response) => {
    // Only connections through CONNECT are for the server itself.
    response.writeHead(404).end();
    request.resume();
  });
  server.on('upgrade', (_request, socket) => socket.destroy());

  /** Serves the connections that CONNECT made to the server itself. */
  const inner = createServer({ keepAliveTimeout: 60_000, requestTimeout: 60_000 });
  inner.on('request', (request, response) => {
    if (!isServed(request.url)) {
      response.writeHead(404).end();
      request.resume();
      return;
    }
    app.emit('request', request, response);
  });
  inner.on('upgrade', (request: IncomingMessage, socket: Socket, head: Buffer) => {
    if (isServed(request.url)) app.emit('upgrade', request, socket, head);
    else socket.destroy();
  });

  server.on('connect', async (request: IncomingMessage, socket: Socket, head: Buffer) => {
    socket.on('error', () => {});
    const answer = (status: number) => socket.end(`HTTP/1.1 ${status} -\r\n\r\n`);
    const place = request.url ?? '';
    if (place === gatewayServerHost || place === options.own()) {
      // Code that reads the client's address expects one.
      Object.defineProperty(socket, 'remoteAddress', { value: '127.0.0.1' });
      socket.write(`HTTP/1.1 ${gatewayStatus.open} OK\r\n\r\n`);
      if (head.length > 0) socket.unshift(head);
      inner.emit('connection', socket);
      return;
    }
    const reach = await options.reach().catch(() => [] as string[]);
    const target = reach
      .flatMap((url) => (URL.canParse(url) ? [new URL(url)] : []))
      .find((url) => `${url.hostname}:${asPort(url)}` === place);
    const host = target?.hostname.replace(/^\[|\]$/g, '') ?? '';
    if (!target || !isHere(host)) return answer(gatewayStatus.notHere);
    const other = connect({ host, port: asPort(target), noDelay: true, allowHalfOpen: true });
    const timer = setTimeout(() => other.destroy(), connectWithinMs);
    const failed = () => {
      clearTimeout(timer);
      answer(gatewayStatus.failed);
    };
    other.on('error', () => {});
    other.once('close', failed);
    other.once('connect', () => {
      clearTimeout(timer);
      other.off('close', failed);
      socket.write(`HTTP/1.1 ${gatewayStatus.open} OK\r\n\r\n`);
      if (head.length > 0) other.write(head);
      socket.pipe(other);
      other.pipe(socket);
      socket.once('close', () => other.destroy());
      other.once('close', () => socket.destroy());
    });
  });

  const name = `${process.pid}-${randomBytes(4).toString('hex')}.sock`;
  // A socket path is limited to 107 bytes, and the data directory may be deeply nested.
  const descriptor = openSync(folder, 'r');
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(`/proc/self/fd/${descriptor}/${name}`, resolve);
  });
  chmodSync(join(folder, name), 0o666);
  return {
    async close() {
      rmSync(join(folder, name), { force: true });
      const closed = new Promise((resolve) => server.close(resolve));
      for (const socket of sockets) socket.destroy();
      await closed;
      closeSync(descriptor);
    },
  };
}

/** Removes the sockets of killed servers. */
async function sweep(folder: string): Promise<void> {
  await Promise.all(
    readdirSync(folder).map(
      (name) =>
        new Promise<void>((resolve) => {
          const descriptor = openSync(folder, 'r');
          const socket = connect({ path: `/proc/self/fd/${descriptor}/${name}` });
          socket.once('error', () => rmSync(join(folder, name), { force: true }));
          socket.once('connect', () => socket.destroy());
          socket.once('close', () => {
            closeSync(descriptor);
            resolve();
          });
        }),
    ),
  );
}
