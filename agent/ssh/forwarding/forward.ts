import { chmod, unlink } from 'node:fs/promises';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { isAbsolute, join } from 'node:path';
import type { Connection, ServerChannel } from 'ssh2';
import type { ForwardObserver } from '../../activity/forwards.ts';
import { isLoopbackName, listenAddresses } from '../../network/listen-address.ts';
import type { PortGuard } from '../../network/port-guard.ts';
import type { Sessions } from '../../sessions.ts';
import { splice } from './splice.ts';

type Opened = (error: Error | undefined, channel: ServerChannel) => void;

/**
 * Serves a connection's port and socket forwarding: `-L`, `-D` and `-W` (connections from here) and `-R` (listening here).
 * Call `close` when the connection has ended.
 */
export function serveForwards(
  connection: Connection,
  options: {
    home: () => string;
    sessions: Sessions;
    guard: PortGuard;
    observer: ForwardObserver;
  },
): { close(): void } {
  const listeners = new Map<string, Server>();
  const sockets = new Set<Socket>();
  let closed = false;
  const absolute = (path: string) => (isAbsolute(path) ? path : join(options.home(), path));

  function joinPort(channel: ServerChannel, socket: Socket) {
    splice(channel, socket, options.sessions.open('port'));
  }

  function track(socket: Socket) {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  }

  /** Accepts the channel only after connecting, so that the client sees a refused connection as refused. */
  function dial(
    socket: Socket,
    accept: () => ServerChannel | undefined,
    reject: () => void,
    check: () => Promise<void>,
  ) {
    track(socket);
    socket.once('error', reject);
    socket.once('connect', async () => {
      const allowed = await check().then(
        () => true,
        () => false,
      );
      if (!allowed) return socket.destroy(new Error('not a program of this workspace'));
      socket.removeListener('error', reject);
      const channel = accept();
      if (channel) {
        joinPort(channel, socket);
        options.observer.observe(channel, socket);
      } else socket.destroy();
    });
  }

  connection.on('tcpip', (accept, reject, info) => {
    const { destIP, destPort: port } = info;
    const open = (host: string, otherwise: () => void) => {
      const socket = connect({ host, port, allowHalfOpen: true, noDelay: true });
      dial(socket, accept, otherwise, () => options.guard.checkSocket(socket));
    };
    /** A program in the workspace may listen only on another address than 127.0.0.1. */
    const tryElsewhere = async () => {
      const hosts = await listenAddresses('tcp', port);
      hosts.reduceRight((next, host) => () => open(host, next), reject)();
    };
    open(destIP, isLoopbackName(destIP) ? () => void tryElsewhere() : reject);
  });
  connection.on('openssh.streamlocal', (accept, reject, info) => {
    const socket = connect({ path: absolute(info.socketPath), allowHalfOpen: true });
    dial(socket, accept as () => ServerChannel | undefined, reject, async () => {});
  });

  /** A server whose connections become channels to the client. */
  function listen(open: (socket: Socket, opened: Opened) => void): Server {
    return createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true }, (socket) => {
      track(socket);
      const fail = () => socket.destroy();
      socket.on('error', fail);
      try {
        open(socket, (error, channel) => {
          if (error) fail();
          else joinPort(channel, socket);
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
    const path = absolute(requested);
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

  connection.on('request', (accept, reject, name, info) => {
    const yes = (port?: number) => (accept as ((port?: number) => void) | undefined)?.(port);
    const no = () => reject?.();
    if (name === 'tcpip-forward') {
      const { bindAddr, bindPort } = info as { bindAddr: string; bindPort: number };
      if (listeners.has(tcpKey(bindAddr, bindPort))) no();
      else listenTcp(bindAddr, bindPort).then(yes, no);
    } else if (name === 'cancel-tcpip-forward') {
      const { bindAddr, bindPort } = info as { bindAddr: string; bindPort: number };
      if (cancel(tcpKey(bindAddr, bindPort))) yes();
      else no();
    } else if ((name as string) === 'streamlocal-forward@openssh.com') {
      listenUnix((info as unknown as { socketPath: string }).socketPath).then(() => yes(), no);
    } else if ((name as string) === 'cancel-streamlocal-forward@openssh.com') {
      if (cancel(unixKey((info as unknown as { socketPath: string }).socketPath))) yes();
      else no();
    } else {
      no();
    }
  });

  return {
    close() {
      closed = true;
      for (const server of listeners.values()) server.close();
      listeners.clear();
      // Connected sockets end with their channel.
      for (const socket of sockets) if (socket.connecting) socket.destroy();
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
