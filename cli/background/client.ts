import { spawn } from 'node:child_process';
import { createConnection, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import type { Duplex } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import type { Context } from '../command/context.ts';
import { serverEnvironment } from '../connection/connection.ts';
import type { ToldIncident } from '../diagnosis/recording.ts';
import { exitCodes } from '../failure/exit-codes.ts';
import { Failure } from '../failure/failure.ts';
import { self } from '../ssh/client-options.ts';
import type { PathChoice } from '../ssh/opening.ts';
import { backgroundAddress } from './address.ts';
import {
  type BackgroundReply,
  type BackgroundRequest,
  type FailureJson,
  readLine,
  type SessionSummary,
  writeLine,
} from './messages.ts';

/** A healthy process responds at once, and commands do not wait for one that is suspended or starved. */
const handshakeMs = 1_000;
/** How long it takes to start listening on a slow machine. */
const startMs = 4_000;
/** Longer than a session waits for restarting agents and servers. */
const answerMs = 60_000;

type Where = Pick<Context, 'env' | 'server'>;

const connect = (path: string) =>
  new Promise<Socket>((resolve, reject) => {
    const socket = createConnection({ path, allowHalfOpen: true });
    socket.once('error', reject).once('connect', () => {
      socket.off('error', reject);
      resolve(socket);
    });
  });

/** A connection to the running process; null if none runs or it does not answer. */
export async function connectTo(path: string): Promise<Socket | null> {
  const socket = await connect(path).catch(() => null);
  if (!socket) return null;
  socket.on('error', () => {});
  try {
    await readLine(socket, handshakeMs);
    return socket;
  } catch {
    socket.destroy();
    return null;
  }
}

async function ask(socket: Socket, question: BackgroundRequest, withinMs: number): Promise<BackgroundReply> {
  writeLine(socket, question);
  return JSON.parse(await readLine(socket, withinMs)) as BackgroundReply;
}

/** Sends a request to the running process; null if none runs. */
async function sendRequest(
  context: Where,
  question: BackgroundRequest,
  withinMs = answerMs,
): Promise<BackgroundReply | null> {
  const path = backgroundAddress(context);
  const socket = path && (await connectTo(path));
  if (!socket) return null;
  try {
    return await ask(socket, question, withinMs);
  } catch {
    return null;
  } finally {
    socket.destroy();
  }
}

/** Starts the background process if there can be one, without waiting for it. A superfluous one exits. */
export function startBackground(context: Context): void {
  if (!backgroundAddress(context)) return;
  const [program, ...words] = [...self, 'background', 'run'];
  const child = spawn(program!, words, {
    detached: true,
    stdio: 'ignore',
    // Not in the current folder, which the user may want to unmount or remove.
    cwd: '/',
    env: { ...context.env, ...serverEnvironment(context.server()) },
  });
  child.on('error', () => {});
  child.unref();
}

const failureOf = ({ code, message, ...more }: FailureJson): Failure => new Failure(code, message, more);

/** A stream to a workspace's SSH server. */
export interface Line {
  stream: Duplex;
  /** The workspace's SSH host key; undefined if the background process is of an older release. */
  hostKey: string | undefined;
  /** Calls back with each incident of its session until it is closed. */
  watchIncidents(tell: (incident: ToldIncident) => void): void;
  /** Why it ended, if ssh did not end it; `broke` is the error of the stream itself. */
  why(broke: Error | null): Promise<Error | null>;
  close(): void;
}

/**
 * Opens a stream over the session of the background process, which is started if necessary. Null if there can be none:
 * the caller then opens its own session. Rejects with the reason if the session was refused.
 */
export async function openSharedStream(
  context: Context,
  workspace: string,
  options: { path: PathChoice; opening?: string | undefined },
): Promise<Line | null> {
  const address = backgroundAddress(context);
  if (!address) return null;
  let socket = await connectTo(address);
  if (!socket) {
    startBackground(context);
    for (const until = performance.now() + startMs; !socket && performance.now() < until; ) {
      await delay(5, undefined, { signal: context.signal });
      socket = await connectTo(address);
    }
    if (!socket) return null;
  }
  const { path, opening } = options;
  let answer: BackgroundReply;
  try {
    answer = await ask(socket, { ask: 'stream', workspace, path, ...(opening && { opening }) }, answerMs);
  } catch {
    // It exited or hangs. Nothing was sent through it yet.
    socket.destroy();
    return null;
  }
  if (!answer.ok) {
    socket.destroy();
    throw answer.error ? failureOf(answer.error) : new Error('the background process refused without a word');
  }
  const name = answer.stream!;
  return {
    stream: socket,
    hostKey: answer.hostKey,
    watchIncidents: (tell) => void watchIncidents(address, name, socket, tell).catch(() => {}),
    async why() {
      const said = await sendRequest(context, { ask: 'why', stream: name });
      if (said?.ok) return said.error ? failureOf(said.error) : null;
      return new Failure(
        'background-ended',
        'The background process of cde, which carried the session, ended.',
        {
          exitCode: exitCodes.unreachable,
          hint: 'Connect again. It starts automatically.',
        },
      );
    },
    close: () => socket.destroy(),
  };
}

/** Reads the incidents of a stream's session until the stream is closed. Older background processes know none. */
async function watchIncidents(
  address: string,
  stream: string,
  until: Socket,
  tell: (incident: ToldIncident) => void,
): Promise<void> {
  const socket = await connectTo(address);
  if (!socket) return;
  if (until.destroyed) return void socket.destroy();
  until.once('close', () => socket.destroy());
  // ssh must be able to end while nothing is told.
  socket.unref();
  writeLine(socket, { ask: 'incidents', stream } satisfies BackgroundRequest);
  for await (const line of createInterface({ input: socket })) {
    const reply = JSON.parse(line) as BackgroundReply;
    if (reply.ok && reply.incident) tell(reply.incident);
  }
}

/**
 * Looks for a working session: its user name at the workspace, or null if none is open yet. Resolves to null if no
 * background process runs.
 */
export async function findSharedSession(
  context: Context,
  workspace: string,
  path: PathChoice,
): Promise<{ username: string | null } | null> {
  const answer = await sendRequest(context, { ask: 'look', workspace, path }, handshakeMs);
  return answer && { username: (answer.ok && answer.username) || null };
}

/** The sessions of the background process; null if none runs. */
export async function shownSessions(context: Context): Promise<SessionSummary[] | null> {
  const answer = await sendRequest(context, { ask: 'show' });
  return answer?.ok ? (answer.sessions ?? []) : null;
}

/** Ends it and all its sessions; false if none ran. */
export async function stopBackground(context: Where): Promise<boolean> {
  return (await sendRequest(context, { ask: 'stop' }))?.ok ?? false;
}
