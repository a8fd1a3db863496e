import { createServer, type Server, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import type { PathChange } from '@cde/tunnel/history.ts';
import type { Session } from '@cde/tunnel/session.ts';
import { join } from '@cde/tunnel/targets.ts';
import type { Context } from '../context.ts';
import { exitCodes } from '../exit-codes.ts';
import { Failure, toFailure } from '../failure.ts';
import { openWorkspaceSession, type PathChoice, pathNote } from './opening.ts';
import { type PortSpec, parsePorts } from './port-specs.ts';

export async function portForward(
  context: Context,
  input: {
    workspace: string;
    ports: string[];
    address: string | undefined;
    start: boolean;
    path: string | undefined;
    verbose: boolean;
  },
): Promise<number | undefined> {
  const address = input.address ?? '127.0.0.1';
  const open = await openPorts(context, { ...input, address });
  try {
    for (const { spec, server } of open.ports) announce(context, input.workspace, server, spec, address);
    await open.ended;
    return undefined;
  } finally {
    open.close();
  }
}

/** Forwards ports until `close`. `ended` rejects when there can be no more sessions, or at Ctrl-C. */
export async function openPorts(
  context: Context,
  input: { workspace: string; ports: string[]; address: string; start: boolean } & PathInput,
): Promise<{
  ports: { spec: PortSpec; server: Server; local: number }[];
  ended: Promise<never>;
  close(): void;
}> {
  const specs = input.ports.flatMap(parsePorts);
  const sessions = keepSession(context, input.workspace, input.start, input);
  const ports: { spec: PortSpec; server: Server; local: number }[] = [];
  const close = () => {
    for (const { server } of ports) server.close();
    sessions.close();
  };
  try {
    await sessions.get();
    // All ports or none: half of what was asked for would be noticed too late.
    for (const spec of specs) {
      const server = await listen(context, spec, input.address, sessions);
      const bound = server.address();
      ports.push({ spec, server, local: typeof bound === 'object' && bound ? bound.port : spec.local });
    }
  } catch (error) {
    close();
    throw error;
  }
  return { ports, ended: sessions.ended, close };
}

interface PathInput {
  path?: string | undefined;
  /** Say each change of the path. */
  verbose?: boolean;
}

export interface Sessions {
  /** The session of the moment, opened anew if it has ended. */
  get(): Promise<Session>;
  /** Rejects when there can be no more sessions, or at Ctrl-C. */
  ended: Promise<never>;
  close(): void;
}

/** How long to wait before the next attempt while the server cannot be reached. */
const pauseMs = 2_000;

/** A time for people: 0.4 s, 3 s. */
const seconds = (ms: number) => `${ms < 950 ? (ms / 1000).toFixed(1) : Math.round(ms / 1000)} s`;

/** Keeps a session with a workspace open: when one ends, the next is opened at once. */
export function keepSession(
  context: Context,
  reference: string,
  start: boolean,
  { path, verbose = false }: PathInput = {},
): Sessions {
  const { out, signal } = context;
  let closed = false;
  let rejectEnded: (error: unknown) => void;
  const ended = new Promise<never>((_, reject) => {
    rejectEnded = reject;
  });
  ended.catch(() => {});
  signal.addEventListener('abort', () => rejectEnded(signal.reason), { once: true });

  const tell = (change: PathChange) =>
    out.json ? out.printJsonLine({ event: 'path', ...change }) : out.note(pathNote(change));

  async function open(first: boolean): Promise<Session> {
    for (;;) {
      try {
        const { session } = await openWorkspaceSession(context, reference, null, {
          start: first && start,
          ...(path && { path: path as PathChoice }),
          ...(verbose && { onChange: tell }),
          onPath(state, reason, afterMs) {
            if (closed || signal.aborted) return;
            if (state === 'lost') out.note(`The connection was lost (${reason.message}); connecting again.`);
            else out.note(`Reconnected after ${seconds(afterMs)}; what was open goes on.`);
          },
        });
        void session.closed.then(({ error }) => {
          if (closed || signal.aborted) return;
          out.note(`The session ended${error ? ` (${error.message})` : ''}; connecting again.`);
          current = open(false);
          current.then(
            () => !closed && out.note('Connected again.'),
            (failed) => rejectEnded(failed),
          );
        });
        return session;
      } catch (error) {
        // Before the first session a person waits for an answer; later the ports are in use, so we keep trying.
        const unreachable = toFailure(error).exitCode === exitCodes.unreachable;
        if (first || closed || signal.aborted || !unreachable) throw error;
        await delay(pauseMs, undefined, { signal });
      }
    }
  }

  let current = open(true);
  return {
    get: () => current,
    ended,
    close() {
      closed = true;
      current.then(
        (session) => session.close(),
        () => {},
      );
    },
  };
}

function listen(context: Context, spec: PortSpec, address: string, sessions: Sessions): Promise<Server> {
  const told = new Set<string>();
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    socket.on('error', () => {}); // The local program broke off; nobody is left to tell.
    carry(socket, spec, sessions).catch((error) => {
      socket.destroy();
      const failure = toFailure(error);
      // A browser tries many times a second: each reason is told once.
      if (context.signal.aborted || told.has(failure.code)) return;
      told.add(failure.code);
      context.out.note(`${spec.local}: ${failure.message}`);
    });
  });
  return new Promise((resolve, reject) => {
    server.once('error', (cause: NodeJS.ErrnoException) => {
      const why =
        cause.code === 'EADDRINUSE'
          ? 'it is in use'
          : cause.code === 'EACCES'
            ? 'you may not'
            : cause.message;
      reject(
        new Failure('port-unavailable', `Cannot listen on ${address}:${spec.local}: ${why}.`, {
          exitCode: exitCodes.conflict,
          hint: `Take another local port: 0:${spec.remote} takes any free one.`,
          cause,
        }),
      );
    });
    server.listen(spec.local, address, () => resolve(server));
  });
}

async function carry(socket: Socket, spec: PortSpec, sessions: Sessions): Promise<void> {
  const session = await sessions.get();
  const stream = await session.open({ kind: 'tcp', host: spec.host, port: spec.remote });
  await join(socket, stream);
}

function announce(
  context: Context,
  workspace: string,
  server: Server,
  spec: PortSpec,
  address: string,
): void {
  const bound = server.address();
  const port = typeof bound === 'object' && bound ? bound.port : spec.local;
  if (context.out.json)
    context.out.printJsonLine({ address, port, workspace, host: spec.host, remotePort: spec.remote });
  else {
    const there = spec.host === 'localhost' ? `port ${spec.remote}` : `${spec.host}:${spec.remote}`;
    context.out.print(`${address}:${port} → ${there} of ${workspace}`);
  }
}
