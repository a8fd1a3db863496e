import type { TicketReply } from '@cde/api/workspaces.ts';
import { makeClientKey } from '@cde/tunnel/auth/keys.ts';
import { openSession, type Session } from '@cde/tunnel/session/session.ts';
import type { FastifyInstance } from 'fastify';
import type { UserActor } from '../http/actor.ts';
import type { Tickets } from './tickets.ts';

/**
 * Opens a session of the server's own with a workspace's agent, in the name of `actor`, who may connect to it.
 * Rejects with a Problem (no ticket) or a TunnelError. `username` is the owner's.
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
      // Agents listen here too: no way out to the access URL and back in, which may not even lead here.
      // (Where regions are pinned, and ours is none of them, they do not.)
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

/** This replica's satellite, as this process itself reaches it. */
function ownSatellite(app: FastifyInstance): { name: string; url: string }[] {
  const address = app.server.address();
  if (address === null || typeof address === 'string') return [];
  const anywhere = address.address === '0.0.0.0' || address.address === '::';
  const host = anywhere ? '127.0.0.1' : address.family === 'IPv6' ? `[${address.address}]` : address.address;
  return [{ name: 'embedded', url: `http://${host}:${address.port}` }];
}
