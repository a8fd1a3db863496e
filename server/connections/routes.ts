import { createTicket } from '@cde/api/workspaces.ts';
import type { FastifyInstance } from 'fastify';
import { serve } from '../http/serve.ts';
import type { Opener } from './open.ts';
import { terminalRoutes } from './terminal.ts';
import type { Tickets } from './tickets.ts';

export function connectionRoutes(
  app: FastifyInstance,
  { issueTicket, openSession }: { issueTicket: Tickets; openSession: Opener },
): void {
  serve(app, createTicket, ({ actor, params, body }) => issueTicket(actor, params.workspace, body.clientKey));
  terminalRoutes(app, { openSession });
}
