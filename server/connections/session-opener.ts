import type { TicketReply } from '@cde/api/workspaces.ts';
import { makeClientKey } from '@cde/tunnel/auth/keys.ts';
import { openSession, type Session } from '@cde/tunnel/session/session.ts';
import type { FastifyInstance } from 'fastify';
import type { UserActor } from '../http/actor.ts';
import type { Tickets } from './tickets.ts';

/**
 * Opens a session from the server to a workspace's agent on behalf of `actor`. Rejects with a Problem if no ticket is
 * issued, else with a TunnelError. `username` is the owner's.
 */
export function makeSessionOpener(app: FastifyInstance, issueTicket: Tickets) {
  return async (
    actor: UserActor,
    workspace: string,
    signal?: AbortSignal,
  ): Promise<{ session: Session } & Pick<TicketReply, 'username' | 'workspaceId' | 'workspace'>> => {
    const key = makeClientKey();
    const reply = await issueTicket(actor, workspace, key.publicKey);
    const session = await openSession({
      ...reply,
      // Agents listen at this replica too, unless their regions exclude it, so there is no need to go through the
      // access URL, which may not be reachable from here.
      satellites: [
        ...(reply.satellites.some(({ name }) => /^embedded(-|$)/.test(name)) ? ownSatellite(app) : []),
        ...reply.satellites,
      ],
      clientPrivateKey: key.privateKey,
      ...(signal && { signal }),
    });
    const { username, workspaceId } = reply;
    return { session, username, workspaceId, workspace: reply.workspace };
  };
}

export type SessionOpener = ReturnType<typeof makeSessionOpener>;

/** This replica's satellite, at its local address. */
function ownSatellite(app: FastifyInstance): { name: string; url: string }[] {
  const address = app.server.address();
  if (address === null || typeof address === 'string') return [];
  const anywhere = address.address === '0.0.0.0' || address.address === '::';
  const host = anywhere ? '127.0.0.1' : address.family === 'IPv6' ? `[${address.address}]` : address.address;
  return [{ name: 'embedded', url: `http://${host}:${address.port}` }];
}
