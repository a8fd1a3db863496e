import type { Permission } from '@cde/api/endpoint.ts';
import { accessRevokedCloseCode } from '@cde/api/events.ts';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { WebSocket } from 'ws';
import type { UserActor } from './actor.ts';

/** How long a socket can outlive the session, token or role that it was opened with. */
const checkIntervalMs = 25_000;

/** Authenticates and authorizes a WebSocket upgrade. Throws a Problem before the upgrade. */
export async function authorizeUpgrade(
  app: FastifyInstance,
  request: FastifyRequest,
  permission: Permission,
): Promise<UserActor> {
  const actor = await app.auth.authenticate(request.headers, { method: request.method, ip: request.ip });
  app.auth.authorize(actor, permission);
  request.actor = actor;
  return actor as UserActor;
}

/**
 * Repeats the authorization while the socket is open: closes it when the session ended, the user was suspended, or
 * `isStillAllowed` returns false for the current actor. Also terminates a peer that does not answer pings. If the
 * database is unreachable the socket stays open.
 */
export function reauthorizeSocket(
  app: FastifyInstance,
  socket: WebSocket,
  request: FastifyRequest,
  permission: Permission,
  isStillAllowed: (actor: UserActor) => boolean = () => true,
  intervalMs = checkIntervalMs,
): void {
  let alive = true;
  socket.on('pong', () => {
    alive = true;
  });
  const timer = setInterval(async () => {
    // A paused socket delivers no pong; if its peer is gone, sending the ping fails.
    if (!alive && !socket.isPaused) return socket.terminate();
    alive = false;
    socket.ping();
    try {
      if (!isStillAllowed(await authorizeUpgrade(app, request, permission)))
        socket.close(accessRevokedCloseCode, 'connect again');
    } catch (error) {
      const { status } = error as { status?: number };
      if (status === 401 || status === 403) socket.close(accessRevokedCloseCode, 'sign in again');
    }
  }, intervalMs);
  socket.once('close', () => clearInterval(timer));
}
