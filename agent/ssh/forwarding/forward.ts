import { isAbsolute, join } from 'node:path';
import type { Connection } from 'ssh2';
import type { ForwardObserver } from '../../activity/forwards.ts';
import type { PortGuard } from '../../network/port-guard.ts';
import type { Sessions } from '../../sessions.ts';
import { serveDials } from './dials.ts';
import { makeListeners } from './listeners.ts';
import { makeForwardedSockets } from './sockets.ts';

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
  const { guard, observer } = options;
  const sockets = makeForwardedSockets(options.sessions);
  const absolutePath = (path: string) => (isAbsolute(path) ? path : join(options.home(), path));
  serveDials(connection, { sockets, absolutePath, guard, observer });
  const listeners = makeListeners(connection, { sockets, absolutePath });

  connection.on('request', (accept, reject, name, info) => {
    const yes = (port?: number) => (accept as ((port?: number) => void) | undefined)?.(port);
    const no = () => reject?.();
    // ssh2's types lack the requests for sockets. Other requests may have no info.
    const tcp = info as { bindAddr: string; bindPort: number };
    const unix = info as unknown as { socketPath: string };
    switch (name as string) {
      case 'tcpip-forward':
        listeners.listenTcp(tcp.bindAddr, tcp.bindPort).then(yes, no);
        break;
      case 'cancel-tcpip-forward':
        if (listeners.cancelTcp(tcp.bindAddr, tcp.bindPort)) yes();
        else no();
        break;
      case 'streamlocal-forward@openssh.com':
        listeners.listenUnix(unix.socketPath).then(() => yes(), no);
        break;
      case 'cancel-streamlocal-forward@openssh.com':
        if (listeners.cancelUnix(unix.socketPath)) yes();
        else no();
        break;
      default:
        no();
    }
  });

  return {
    close() {
      listeners.close();
      sockets.close();
    },
  };
}
