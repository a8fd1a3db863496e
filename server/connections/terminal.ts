import { Problem } from '@cde/api/problem.ts';
import { TerminalName } from '@cde/api/satellite-terminals.ts';
import { proxyTerminal, terminalBudget } from '@cde/satellite/terminals/terminal.ts';
import { limitSocket } from '@cde/tunnel/network/socket-limits.ts';
import type { FastifyInstance } from 'fastify';
import type { WebSocket } from 'ws';
import { z } from 'zod';
import type { UserActor } from '../http/actor.ts';
import { toProblem } from '../http/serve.ts';
import { authorizeUpgrade, reauthorizeSocket } from '../http/socket-auth.ts';
import { makeSocketLimiter } from '../http/socket-limiter.ts';
import type { ConnectionAudit } from './connection-audit.ts';
import type { SessionOpener } from './session-opener.ts';

const Query = z.object({
  cols: z.coerce.number().int().min(1).max(1000).default(80),
  rows: z.coerce.number().int().min(1).max(1000).default(24),
  terminal: TerminalName.optional(),
});
/** Ends a suspended user's shell within ten seconds. */
const checkEveryMs = 8_000;

/** The browser terminal: SSH to the agent, over a session that the server opens. */
export function terminalRoutes(
  app: FastifyInstance,
  { openSession, audit }: { openSession: SessionOpener; audit: ConnectionAudit },
): void {
  const open = makeSocketLimiter('terminals');
  app.get<{ Params: { workspace: string } }>(
    '/api/v1/workspaces/:workspace/terminal',
    {
      websocket: true,
      schema: { hide: true },
      preValidation: async (request) => {
        const { userId } = await authorizeUpgrade(app, request, 'workspace:connect');
        parseQuery(request.query);
        open.add(userId, request);
      },
    },
    (socket: WebSocket, request) => {
      limitSocket(socket, terminalBudget);
      reauthorizeSocket(app, socket, request, 'workspace:connect', undefined, checkEveryMs);
      const { terminal, ...size } = parseQuery(request.query);
      proxyTerminal(socket, {
        size,
        terminal,
        openSession: async (gone) => {
          const actor = request.actor as UserActor;
          const opened = await openSession(actor, request.params.workspace, gone);
          await audit.record({ actor, requestId: request.id, ip: request.ip }, opened, 'terminal');
          return opened;
        },
        describeError,
      });
    },
  );
}

function parseQuery(query: unknown): z.output<typeof Query> {
  const parsed = Query.safeParse(query);
  if (parsed.success) return parsed.data;
  throw Object.assign(new Error('invalid'), { issues: parsed.error.issues, where: 'query' });
}

function describeError(error: unknown): string {
  const problem = error instanceof Problem ? error : toProblem(error);
  if (problem.code === 'internal') return (error as Error).message;
  return [problem.message, problem.hint].filter(Boolean).join(' ');
}
