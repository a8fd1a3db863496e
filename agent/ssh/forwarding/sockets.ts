import type { Socket } from 'node:net';
import type { ServerChannel } from 'ssh2';
import type { Sessions } from '../../sessions.ts';
import { splice } from './splice.ts';

/** The sockets of one connection's forwarded ports. */
export interface ForwardedSockets {
  add(socket: Socket): void;
  /** Copies between a channel and a socket until both have ended. */
  join(channel: ServerChannel, socket: Socket): void;
  /** Connected sockets end with their channel; this ends those that are still connecting. */
  close(): void;
}

export function makeForwardedSockets(sessions: Sessions): ForwardedSockets {
  const sockets = new Set<Socket>();
  return {
    add(socket) {
      sockets.add(socket);
      socket.once('close', () => sockets.delete(socket));
    },
    join: (channel, socket) => splice(channel, socket, sessions.open('port')),
    close() {
      for (const socket of sockets) if (socket.connecting) socket.destroy();
    },
  };
}
