import { once } from 'node:events';
import { chmodSync, rmSync, statSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import type { Session } from '@cde/tunnel/session/session.ts';
import { splice } from '@cde/tunnel/streams/targets.ts';
import type { Context } from '../command/context.ts';
import { exitCodes } from '../failure/exit-codes.ts';
import { Failure, toFailure } from '../failure/failure.ts';
import { openWorkspaceSession, type PathChoice, readOpening } from '../ssh/opening.ts';
import { backgroundAddress } from './address.ts';
import { connectTo } from './client.ts';
import {
  type BackgroundReply,
  type BackgroundRequest,
  type FailureJson,
  readLine,
  writeLine,
} from './messages.ts';

/** How long a session without streams is kept open for the next command. */
const idleSessionMs = 5 * 60_000;
/** How long the process runs without a session. */
const idleMs = 60_000;
/** How often it checks that its socket still exists and is its own, and whether it is still needed. */
const idleCheckMs = 2_000;
/** A client sends its request as soon as it has connected. */
const requestTimeoutMs = 5_000;
/** The number of ended streams whose reason is remembered. */
const maxEndReasons = 100;
/** Attempts to take the address. Another process that started at the same time has ended or answers before the next one. */
const maxAttempts = 5;
/** The agent reports why it ended a session within this time after its streams ended. */
const reasonMs = 300;

interface SharedSession {
  workspace: string;
  opened: Promise<{ session: Session; hostKey: string }>;
  session: Session | null;
  username: string;
  hasPath: boolean;
  streams: number;
  /** Connections of those who want to know of incidents. */
  watchers: Set<Socket>;
  since: Date;
  /** When its last stream ended. */
  idleSince: number;
}

/**
 * Holds sessions for the `cde` commands of one user, configuration and login, so that several connections to a
 * workspace share an open session. It exits when it is no longer needed.
 */
export async function runBackground(context: Context): Promise<number> {
  const address = backgroundAddress(context);
  if (!address)
    throw new Failure('background-unavailable', 'There can be no background process here.', {
      exitCode: exitCodes.conflict,
      hint: 'It needs a login, a folder of your own for its socket, and CDE_BACKGROUND not to be off. Commands work without it.',
    });
  const sessions = new Map<string, SharedSession>();
  const reasons = new Map<string, Promise<FailureJson | null>>();
  /** Of the open streams. */
  const sessionsOfStreams = new Map<string, SharedSession>();
  /** Streams that have ended, oldest first. */
  const endedNames: string[] = [];
  const connections = new Set<Socket>();
  let streams = 0;
  let neededAt = performance.now();

  function openSharedSession(workspace: string, path: PathChoice, handed: string | undefined): SharedSession {
    const key = `${path} ${workspace}`;
    const there = sessions.get(key);
    if (there) return there;
    const kept: SharedSession = {
      ...{ workspace, session: null, username: '', hasPath: true, streams: 0, watchers: new Set() },
      ...{ since: new Date(), idleSince: performance.now() },
      opened: openWorkspaceSession(context, workspace, handed ? readOpening(handed, workspace) : null, {
        path,
        onPath: (state) => {
          kept.hasPath = state !== 'lost';
        },
        onIncident(incident) {
          for (const socket of kept.watchers)
            writeLine(socket, { ok: true, incident } satisfies BackgroundReply);
        },
      }).then(({ session, opening }) => {
        kept.session = session;
        kept.username = opening.username;
        void session.closed.then(() => sessions.get(key) === kept && sessions.delete(key));
        return { session, hostKey: opening.sshHostKey };
      }),
    };
    kept.opened.catch(() => sessions.get(key) === kept && sessions.delete(key));
    sessions.set(key, kept);
    return kept;
  }

  async function carry(
    socket: Socket,
    question: Extract<BackgroundRequest, { ask: 'stream' }>,
  ): Promise<void> {
    const kept = openSharedSession(question.workspace, question.path, question.opening);
    kept.streams++;
    try {
      const { session, hostKey } = await kept.opened;
      if (socket.destroyed) return;
      const stream = await session.open({ kind: 'ssh' }, { eager: true });
      // Another process may be asked about this stream.
      const name = `${process.pid}.${++streams}`;
      sessionsOfStreams.set(name, kept);
      let failed: Error | null = null;
      stream.on('error', (error) => {
        failed = error;
      });
      writeLine(socket, { ok: true, stream: name, hostKey } satisfies BackgroundReply);
      const ended = once(stream, 'close').catch(() => {});
      reasons.set(
        name,
        ended.then(async () => {
          if (failed) return toFailure(failed).toJSON();
          const later = new Promise<null>((resolve) => setTimeout(resolve, reasonMs, null));
          const end = await Promise.race([session.closed, later]);
          return end?.error ? toFailure(end.error).toJSON() : null;
        }),
      );
      void ended.then(() => {
        sessionsOfStreams.delete(name);
        endedNames.push(name);
        if (endedNames.length > maxEndReasons) reasons.delete(endedNames.shift()!);
      });
      await splice(socket, stream);
    } finally {
      kept.streams--;
      kept.idleSince = performance.now();
    }
  }

  async function answer(socket: Socket, question: BackgroundRequest): Promise<void> {
    switch (question.ask) {
      case 'stream':
        return carry(socket, question);
      case 'why': {
        const error = await reasons.get(question.stream);
        // Undefined: an earlier process carried it.
        return reply(socket, error === undefined ? { ok: false } : { ok: true, ...(error && { error }) });
      }
      case 'incidents': {
        const watchers = sessionsOfStreams.get(question.stream)?.watchers;
        if (!watchers) return reply(socket, { ok: false });
        watchers.add(socket);
        socket.once('close', () => watchers.delete(socket));
        // Nothing more is asked. It sees the end of the other side only if it reads.
        socket.resume();
        return;
      }
      case 'look': {
        const kept = sessions.get(`${question.path} ${question.workspace}`);
        const works = kept?.session && kept.hasPath;
        return reply(socket, works ? { ok: true, username: kept.username } : { ok: false });
      }
      case 'show':
        return reply(socket, {
          ok: true,
          sessions: [...sessions.values()].map(({ workspace, session, hasPath, streams: open, since }) => ({
            workspace,
            path: session && hasPath ? { kind: session.path.kind, via: session.path.via } : null,
            streams: open,
            since: since.toISOString(),
          })),
        });
      case 'stop':
        reply(socket, { ok: true });
        socket.once('finish', stop);
        return;
      default:
        throw new Failure('usage', 'The background process does not know this question.');
    }
  }
  const reply = (socket: Socket, message: BackgroundReply) => {
    writeLine(socket, message);
    socket.end();
  };

  const server = createServer({ allowHalfOpen: true }, (socket) => {
    connections.add(socket);
    neededAt = performance.now();
    socket.on('error', () => {});
    socket.once('close', () => {
      connections.delete(socket);
      neededAt = performance.now();
    });
    writeLine(socket, { cde: process.pid });
    readLine(socket, requestTimeoutMs)
      .then((line) => answer(socket, JSON.parse(line) as BackgroundRequest))
      .catch((error) => reply(socket, { ok: false, error: toFailure(error).toJSON() }));
  });

  let resolveEnd: () => void;
  const ended = new Promise<void>((resolve) => {
    resolveEnd = resolve;
  });
  const inode = await listen(server, address);
  if (inode === null) return exitCodes.success;
  const isOurs = () => inodeOf(address) === inode;
  const stop = (): void => {
    clearInterval(timer);
    if (isOurs()) rmSync(address, { force: true });
    server.close();
    for (const { session } of sessions.values()) session?.close();
    for (const socket of connections) socket.destroy();
    resolveEnd();
  };
  const timer = setInterval(() => {
    const now = performance.now();
    for (const kept of sessions.values())
      if (kept.session && kept.streams === 0 && now - kept.idleSince > idleSessionMs) kept.session.close();
    // Its folder is gone or another process has taken its place: no new client can connect.
    const isAlone = !isOurs();
    const isIdle = sessions.size === 0 && connections.size === 0 && now - neededAt > idleMs;
    const isUnused = [...sessions.values()].every((kept) => kept.streams === 0) && connections.size === 0;
    if (isIdle || (isAlone && isUnused)) stop();
  }, idleCheckMs);
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, stop);
  // It has no terminal.
  process.on('SIGHUP', () => {});
  await ended;
  return exitCodes.success;
}

/**
 * Takes the address; null if another process holds it and responds. A dead or hanging one loses the address, but keeps
 * the streams that it carries.
 */
async function listen(server: Server, address: string): Promise<number | null> {
  for (let attempt = 0; attempt < maxAttempts; attempt++) {
    try {
      // The kernel gives the name to only one process.
      server.listen(address);
      await once(server, 'listening');
      chmodSync(address, 0o600);
      return statSync(address).ino;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error;
    }
    const before = inodeOf(address);
    const other = await connectTo(address);
    other?.destroy();
    if (other) return null;
    // A process that has the name and does not listen yet is checked again.
    await delay(20 * (attempt + 1));
    if (attempt > 0 && before !== undefined && inodeOf(address) === before) rmSync(address, { force: true });
  }
  return null;
}

const inodeOf = (path: string) => statSync(path, { throwIfNoEntry: false })?.ino;
