import type { Socket } from 'node:net';
import { Problem } from '@cde/api/problem.ts';
import type { FastifyRequest } from 'fastify';

/** Limits the WebSockets of one kind that each user has open. */
export interface SocketLimiter {
  /** Counts a socket until the request's connection closes. Throws a Problem if the user already has too many. */
  add(userId: string, request: FastifyRequest): void;
}

/** Each browser tab opens one socket: the default allows many tabs and stops a loop that opens sockets. */
export function makeSocketLimiter(what: string, max = 100): SocketLimiter {
  const byUser = new Map<string, Set<Socket>>();
  return {
    add(userId, request) {
      const sockets = byUser.get(userId) ?? new Set();
      if (sockets.size >= max)
        throw new Problem('too-many-connections', `You have ${max} ${what} open, which is the limit.`, {
          hint: 'Close some of them, for example browser tabs, and try again.',
          retryAfter: 10,
        });
      const { socket } = request.raw;
      byUser.set(userId, sockets.add(socket));
      socket.once('close', () => {
        sockets.delete(socket);
        if (sockets.size === 0 && byUser.get(userId) === sockets) byUser.delete(userId);
      });
    },
  };
}
