import { connect, type Socket } from 'node:net';
import type { Connection, ServerChannel } from 'ssh2';
import type { ForwardObserver } from '../../activity/forwards.ts';
import { isLoopbackName, listenAddresses } from '../../network/listen-address.ts';
import type { PortGuard } from '../../network/port-guard.ts';
import type { ForwardedSockets } from './sockets.ts';

/** Serves `-L`, `-D` and `-W`: connections from here to ports and sockets of the workspace. */
export function serveDials(
  connection: Connection,
  options: {
    sockets: ForwardedSockets;
    absolutePath: (path: string) => string;
    guard: PortGuard;
    observer: ForwardObserver;
  },
): void {
  const { sockets, absolutePath, guard, observer } = options;

  /** Accepts the channel only after connecting, so that the client sees a refused connection as refused. */
  function dial(
    socket: Socket,
    accept: () => ServerChannel | undefined,
    reject: () => void,
    check: () => Promise<void>,
  ) {
    sockets.add(socket);
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
        sockets.join(channel, socket);
        observer.observe(channel, socket);
      } else socket.destroy();
    });
  }

  connection.on('tcpip', (accept, reject, info) => {
    const { destIP, destPort: port } = info;
    const open = (host: string, otherwise: () => void) => {
      const socket = connect({ host, port, allowHalfOpen: true, noDelay: true });
      dial(socket, accept, otherwise, () => guard.checkSocket(socket));
    };
    /** A program in the workspace may listen only on another address than 127.0.0.1. */
    const tryElsewhere = async () => {
      const hosts = await listenAddresses('tcp', port);
      hosts.reduceRight((next, host) => () => open(host, next), reject)();
    };
    open(destIP, isLoopbackName(destIP) ? () => void tryElsewhere() : reject);
  });
  connection.on('openssh.streamlocal', (accept, reject, info) => {
    const socket = connect({ path: absolutePath(info.socketPath), allowHalfOpen: true });
    dial(socket, accept as () => ServerChannel | undefined, reject, async () => {});
  });
}
