import { type Bucket, makeBucket, type Rate } from '@cde/tunnel/network/token-bucket.ts';
import type WebSocket from 'ws';

/** One user's client sockets, and the budget for small messages that they share. */
interface RelayUser {
  sockets: Set<WebSocket>;
  small: Bucket;
}

/** Keeps track of client sockets by user. */
export function makeClientRegistry(options: {
  maxSocketsPerUser: number;
  smallMessages: Rate;
  onUser: ((userId: string) => void) | undefined;
}) {
  const users = new Map<string, RelayUser>();
  return {
    /** Adds the socket until it closes. Returns null if the user has too many. */
    add(userId: string, socket: WebSocket): RelayUser | null {
      const user = users.get(userId) ?? { sockets: new Set(), small: makeBucket(options.smallMessages) };
      if (user.sockets.size >= options.maxSocketsPerUser) return null;
      users.set(userId, user);
      user.sockets.add(socket);
      if (user.sockets.size === 1) options.onUser?.(userId);
      socket.once('close', () => {
        user.sockets.delete(socket);
        if (user.sockets.size === 0 && users.get(userId) === user) users.delete(userId);
      });
      return user;
    },
    users: () => [...users.keys()],
    socketsOf: (userId: string): Iterable<WebSocket> => users.get(userId)?.sockets ?? [],
  };
}
