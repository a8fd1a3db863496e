import { type KeyObject, randomUUID } from 'node:crypto';
import type { Client } from '@cde/api/client.ts';
import type { TicketReply, WorkspaceStatus } from '@cde/api/workspaces.ts';
import { exportPublicKey } from '@cde/tunnel/auth/keys.ts';
import { TunnelError } from '@cde/tunnel/errors.ts';
import type { Context } from '../command/context.ts';
import { createTicket, getWorkspace } from '../connection/endpoints.ts';
import { toFailure } from '../failure/failure.ts';
import { pathRef } from '../workspaces/reference.ts';

/** Replies of the server that will not change by themselves. */
const refusals = new Set([400, 401, 403, 404, 410]);
/** Statuses from which the session's agent does not return. A stop in progress can still fail and leave it running. */
const withoutAgent: ReadonlySet<WorkspaceStatus> = new Set(['stopped', 'deleting', 'deleted']);

/**
 * Gets a fresh ticket for a session that has lost its path. Rejects with a TunnelError if the session cannot continue: the
 * workspace was stopped, or the user has lost access. Any other error is temporary.
 */
export async function renewTicket(
  context: Pick<Context, 'client'>,
  reference: string,
  clientPrivateKey: KeyObject,
): Promise<TicketReply> {
  const params = { workspace: pathRef(reference) };
  // Without patience: the session retries on its own and knows when to give up.
  const client = await context.client();
  try {
    return await client.call(createTicket, {
      params,
      body: { clientKey: exportPublicKey(clientPrivateKey) },
      idempotencyKey: randomUUID(),
    });
  } catch (error) {
    const failure = toFailure(error);
    if (failure.code === 'workspace-not-running' && (await isWithoutAgent(client, params)))
      throw new TunnelError('workspace-stopped', failure.message);
    // A proxy's error page says nothing about this user.
    const isOurs = failure.code !== 'not-a-cde-server';
    if (isOurs && refusals.has((error as { status?: number }).status ?? 0))
      throw new TunnelError('ticket-refused', failure.message);
    throw error;
  }
}

async function isWithoutAgent(client: Client, params: { workspace: string }): Promise<boolean> {
  const { status } = await client.call(getWorkspace, { params });
  return withoutAgent.has(status);
}
