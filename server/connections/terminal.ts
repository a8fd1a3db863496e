import { Problem } from '@cde/api/problem.ts';
import { TerminalName } from '@cde/api/satellite-terminals.ts';
import { carryTerminal } from '@cde/satellite/terminal.ts';
import type { FastifyInstance } from 'fastify';
import type { WebSocket } from 'ws';
import { z } from 'zod';
import type { UserActor } from '../http/actor.ts';
import { admit, keepAdmitted } from '../http/admitted.ts';
import { toProblem } from '../http/serve.ts';
import type { Opener } from './open.ts';

const Size = z.object({
  cols: z.coerce.number().int().min(1).max(1000).default(80),
  rows: z.coerce.number().int().min(1).max(1000).default(24),
});
const Kept = z.object({ terminal: TerminalName.optional() });
/** A suspended user's shell ends within ten seconds. */
const checkEveryMs = 8_000;

/** The browser's terminal: a session of ours with the agent, in it SSH, in it a shell. */
export function terminalRoutes(app: FastifyInstance, { openSession }: { openSession: Opener }): void {
  app.get<{ Params: { workspace: string } }>(
    '/api/v1/workspaces/:workspace/terminal',
    {
      websocket: true,
      schema: { hide: true },
      preValidation: async (request) => void (await admit(app, request, 'workspace:connect')),
    },
    (socket: WebSocket, request) => {
      keepAdmitted(app, socket, request, 'workspace:connect', undefined, checkEveryMs);
      carryTerminal(socket, {
        size: Size.parse(request.query),
        terminal: Kept.parse(request.query).terminal,
        openSession: (gone) => openSession(request.actor as UserActor, request.params.workspace, gone),
        words,
      });
    },
  );
}

function words(error: unknown): string {
  const problem = error instanceof Problem ? error : toProblem(error);
  if (problem.code === 'internal') return (error as Error).message;
  return [problem.message, problem.hint].filter(Boolean).join(' ');
}
