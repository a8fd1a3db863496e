import type { Permission } from '@cde/api/endpoint.ts';
import { accessRevokedCloseCode } from '@cde/api/events.ts';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { WebSocket } from 'ws';
import type { UserActor } from './actor.ts';

/** How long a socket may outlive the session, the token or the role that it was opened with. */
const checkIntervalMs = 25_000;

/** Who opens a WebSocket, once they may. Throws a Problem, before the upgrade. */
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
 * Asks again, as long as the socket is open, whether its user may still have it, and closes it when the
 * session has ended or the user was suspended; cuts off a peer that gives no sign of life. A database that
 * is away decides nothing. `still`: told who it is now; false closes the socket too. `everyMs`: how often it asks.
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
    // One that we do not read from cannot be heard; if it is gone, the ping finds out.
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
