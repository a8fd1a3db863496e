import { randomUUID } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http2';
import type { TLSSocket } from 'node:tls';
import { checkProof, proofHeader } from '../auth/handshake.ts';
import { verifyTicket } from '../auth/ticket.ts';
import { TunnelError } from '../errors.ts';
import type { PathKind } from '../pipe/path.ts';

/** The client at the other end of a session. */
export interface SessionContext {
  sessionId: string;
  workspaceId: string;
  userId: string;
  /** The kinds of path that the ticket allows. */
  paths: readonly PathKind[];
  /** The targets that the ticket allows, in the form of formatTarget; null for all. */
  only: readonly string[] | null;
  /** Aborted when the session ends. */
  signal: AbortSignal;
}

/** What a ticket must name, and the keys that it must be signed with. */
export interface AdmissionOptions {
  workspaceId: string | (() => string);
  /** The server's public keys (SPKI, base64url), or a function that returns the current ones. */
  ticketKeys: readonly string[] | (() => readonly string[]);
  /** This agent's key: makeCertificate's fingerprint. */
  agentKey: string;
  /** The time at which tickets are verified. */
  now?: () => Date;
}

/**
 * Verifies the ticket and the proof of a client's hello. Rejects with a TunnelError `ticket-…`. `signal` is aborted when the
 * session ends.
 */
export async function admit(
  socket: TLSSocket,
  headers: IncomingHttpHeaders,
  options: AdmissionOptions,
  signal: AbortSignal,
): Promise<SessionContext> {
  const ticket = /^Bearer (\S+)$/.exec(headers.authorization ?? '')?.[1];
  const proof = headers[proofHeader];
  if (!ticket || typeof proof !== 'string') throw new TunnelError('ticket-missing');
  const keys = typeof options.ticketKeys === 'function' ? options.ticketKeys() : options.ticketKeys;
  const claims = await verifyTicket(ticket, keys, options.now?.());
  const { workspaceId } = options;
  if (claims.workspaceId !== (typeof workspaceId === 'function' ? workspaceId() : workspaceId))
    throw new TunnelError('ticket-wrong-workspace');
  if (claims.agentKey !== options.agentKey) throw new TunnelError('ticket-wrong-agent');
  if (!checkProof(socket, ticket, claims.clientKey, proof)) throw new TunnelError('ticket-proof-invalid');
  return {
    sessionId: randomUUID(),
    workspaceId: claims.workspaceId,
    userId: claims.userId,
    paths: claims.paths,
    only: claims.only ?? null,
    signal,
  };
}
