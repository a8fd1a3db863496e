import { createTicket } from '@cde/api/workspaces.ts';
import type { FastifyInstance } from 'fastify';
import { serve } from '../http/serve.ts';
import type { ConnectionAudit } from './connection-audit.ts';
import type { SessionOpener } from './session-opener.ts';
import { terminalRoutes } from './terminal.ts';
import type { Tickets } from './tickets.ts';

export function connectionRoutes(
  app: FastifyInstance,
  deps: { issueTicket: Tickets; openSession: SessionOpener; audit: ConnectionAudit },
): void {
  serve(app, createTicket, async (input) => {
    const ticket = await deps.issueTicket(input.actor, input.params.workspace, input.body.clientKey);
    await deps.audit.record(input, ticket, 'session');
    return ticket;
  });
  terminalRoutes(app, deps);
}
