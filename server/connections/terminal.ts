import { TerminalMessage } from '@cde/api/events.ts';
import { Problem } from '@cde/api/problem.ts';
import type { Session } from '@cde/tunnel/session.ts';
import type { FastifyInstance } from 'fastify';
import { Client, type ClientChannel } from 'ssh2';
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
/** By its name a shell is found again: `CDE_TERMINAL` of agent/ssh. */
const Kept = z.object({
  terminal: z
    .string()
    .regex(/^[A-Za-z0-9._-]{1,64}$/)
    .optional(),
});
/** Beyond this the shell is paused until the browser has taken some: its memory is not ours to fill. */
const highWater = 512 * 1024;
/** A suspended user's shell ends within ten seconds. */
const checkEveryMs = 8_000;
/** Bytes of input kept while the shell opens. */
const mostEarly = 64 * 1024;

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
      const say = (message: TerminalMessage) =>
        socket.readyState === socket.OPEN && socket.send(JSON.stringify(message));
      const size = Size.parse(request.query);
      const { terminal } = Kept.parse(request.query);
      let session: Session | null = null;
      let shell: ClientChannel | null = null;
      const early: Buffer[] = [];
      let earlyBytes = 0;
      const end = (code: number | null, message: string) => {
        say({ type: 'exit', code, message });
        socket.close(1000);
        session?.close();
      };
      const gone = new AbortController();
      socket.on('close', () => {
        gone.abort();
        shell?.close();
        session?.close();
      });
      socket.on('message', (data: Buffer, binary: boolean) => {
        if (binary) {
          if (!shell) {
            early.push(data);
            earlyBytes += data.length;
          }
          // Until the shell opens, or has read what was typed or pasted, the rest waits at the browser.
          if (shell ? !shell.write(data) : earlyBytes >= mostEarly) socket.pause();
          return;
        }
        const message = TerminalMessage.safeParse(safeJson(data));
        if (!message.success || message.data.type !== 'resize') return;
        size.cols = message.data.cols;
        size.rows = message.data.rows;
        shell?.setWindow(size.rows, size.cols, 0, 0);
      });

      const open = async () => {
        const opened = await openSession(request.actor as UserActor, request.params.workspace, gone.signal);
        session = opened.session;
        void session.closed.then(({ error }) => end(null, error ? error.message : 'The session has ended.'));
        if (socket.readyState !== socket.OPEN) return session.close();
        const stream = await session.open({ kind: 'ssh' }, { eager: true });
        const client = new Client();
        client.on('error', (error) => end(null, error.message));
        client.on('ready', () => {
          const env = terminal === undefined ? {} : { env: { CDE_TERMINAL: terminal } };
          client.shell({ term: 'xterm-256color', ...size }, env, (error, channel) => {
            if (error) return end(null, error.message);
            shell = channel;
            channel.on('drain', () => socket.resume());
            for (const data of early.splice(0)) channel.write(data);
            if (!channel.writableNeedDrain) socket.resume();
            channel.setWindow(size.rows, size.cols, 0, 0);
            const onData = (data: Buffer) => {
              socket.send(data, () => {
                if (channel.isPaused() && socket.bufferedAmount < highWater / 2) channel.resume();
              });
              if (socket.bufferedAmount > highWater) channel.pause();
            };
            channel.on('data', onData);
            channel.stderr.on('data', onData);
            channel.on('exit', (code: number | null, signal?: string) =>
              end(
                // It has ended, by whatever: nobody is to look for it again.
                code ?? 255,
                signal ? `The shell was ended by ${signal}.` : `The shell has ended (exit code ${code}).`,
              ),
            );
            channel.on('close', () => end(null, 'The shell has ended.'));
          });
        });
        // Inside the tunnel the agent is known by its pinned key already; SSH's own adds the shell, not trust.
        client.connect({
          sock: stream,
          username: opened.username,
          authHandler: ['none'],
          keepaliveInterval: 0,
          readyTimeout: 15_000,
        });
      };
      open().catch((error) => {
        const problem = error instanceof Problem ? error : toProblem(error);
        end(
          null,
          problem.code === 'internal'
            ? (error as Error).message
            : [problem.message, problem.hint].filter(Boolean).join(' '),
        );
      });
    },
  );
}

function safeJson(data: Buffer): unknown {
  try {
    return JSON.parse(data.toString('utf8'));
  } catch {
    return null;
  }
}
