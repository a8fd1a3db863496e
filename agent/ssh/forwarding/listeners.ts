import { chmod, unlink } from 'node:fs/promises';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import type { Connection, ServerChannel } from 'ssh2';
import type { ForwardedSockets } from './sockets.ts';

type Opened = (error: Error | undefined, channel: ServerChannel) => void;

/** What listens in the workspace for the client (`-R`). */
export interface Listeners {
  /** Resolves with the port, which the workspace chooses if it is 0. Rejects if the client listens there already. */
  listenTcp(bindAddress: string, bindPort: number): Promise<number>;
  listenUnix(path: string): Promise<void>;
  /** Returns false if the client does not listen there. */
  cancelTcp(bindAddress: string, bindPort: number): boolean;
  cancelUnix(path: string): boolean;
  close(): void;
}

export function makeListeners(
  connection: Connection,
  options: { sockets: ForwardedSockets; absolutePath: (path: string) => string },
): Listeners {
  const { sockets, absolutePath } = options;
  const listeners = new Map<string, Server>();
  let closed = false;

  /** A server whose connections become channels to the client. */
  function listen(open: (socket: Socket, opened: Opened) => void): Server {
    return createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true }, (socket) => {
      sockets.add(socket);
      const fail = () => socket.destroy();
      socket.on('error', fail);
      try {
        open(socket, (error, channel) => {
          if (error) fail();
          else sockets.join(channel, socket);
        });
      } catch {
        fail();
      }
    });
  }

  async function start(server: Server, where: { host?: string; port?: number; path?: string }) {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(where, () => {
        server.removeListener('error', reject);
        server.on('error', () => {});
        resolve();
      });
    });
    if (closed) server.close();
  }

  /** Listens on all addresses that the client's bind address means, on the same port. */
  async function listenTcp(bindAddress: string, bindPort: number): Promise<number> {
    if (listeners.has(tcpKey(bindAddress, bindPort))) throw new Error('already listening');
    let port = bindPort;
    const servers: Server[] = [];
    try {
      for (const [index, host] of bindHosts(bindAddress).entries()) {
        const server = listen((socket, opened) =>
          connection.forwardOut(
            bindAddress,
            port,
            socket.remoteAddress ?? '127.0.0.1',
            socket.remotePort ?? 0,
            opened,
          ),
        );
        try {
          await start(server, { host, port });
        } catch (error) {
          // The second address (IPv6) is optional.
          if (index === 0) throw error;
          continue;
        }
        servers.push(server);
        port = (server.address() as AddressInfo).port;
      }
    } catch (error) {
      for (const server of servers) server.close();
      throw error;
    }
    const [first, ...others] = servers;
    for (const other of others) first!.once('close', () => other.close());
    listeners.set(tcpKey(bindAddress, port), first!);
    return port;
  }

  async function listenUnix(requested: string): Promise<void> {
    const path = absolutePath(requested);
    const server = listen((_, opened) => connection.openssh_forwardOutStreamLocal(requested, opened));
    try {
      await start(server, { path });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE' || (await isListening(path))) throw error;
      // Left over from a session whose connection was lost.
      await unlink(path);
      await start(server, { path });
    }
    await chmod(path, 0o600);
    listeners.set(unixKey(requested), server);
  }

  function cancel(key: string): boolean {
    const server = listeners.get(key);
    listeners.delete(key);
    server?.close();
    return server !== undefined;
  }

  return {
    listenTcp,
    listenUnix,
    cancelTcp: (bindAddress, bindPort) => cancel(tcpKey(bindAddress, bindPort)),
    cancelUnix: (path) => cancel(unixKey(path)),
    close() {
      closed = true;
      for (const server of listeners.values()) server.close();
      listeners.clear();
    },
  };
}

const tcpKey = (address: string, port: number) => `tcp ${address} ${port}`;
const unixKey = (path: string) => `unix ${path}`;

/** RFC 4254, 7.1: empty is every address, `localhost` both loopbacks; OpenSSH sends `*` for every address too. */
function bindHosts(address: string): string[] {
  if (address === '' || address === '*') return ['::', '0.0.0.0'];
  if (address === 'localhost') return ['127.0.0.1', '::1'];
  return [address];
}

function isListening(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
