import { existsSync } from 'node:fs';
import type { ServerChannel, Session } from 'ssh2';
import type { Activity } from '../activity/activity.ts';
import { makeJobActivity } from '../activity/job-activity.ts';
import type { OpenTerminals } from '../activity/open-terminals.ts';
import type { SessionKind, Sessions } from '../sessions.ts';
import { serveSftp } from '../sftp/server.ts';
import {
  loginArguments,
  loginShell,
  makeRequestedEnvironment,
  type OwnTools,
  sessionEnvironment,
  type Workspace,
} from './environment.ts';
import type { PersistentTerminals } from './jobs/persistent-terminals.ts';
import type { PipePool } from './jobs/pipes.ts';
import { type Job, type Running, runInTerminal, runPiped, type Terminal } from './jobs/run.ts';
import { onSessionRequest, type SessionRequest } from './protocol/requests.ts';
import { keepRequestsAfterEof } from './protocol/ssh2-internals.ts';

export interface SessionContext {
  workspace: () => Workspace;
  sessions: Sessions;
  pool: PipePool;
  activity: Activity;
  own: OwnTools | undefined;
  openTerminals: OpenTerminals;
  /** The name of the connection's user, if it is known. */
  username: () => string | undefined;
  /** Terminals that outlive their clients; loaded on first use. */
  persistentTerminals: () => Promise<PersistentTerminals>;
  /** The socket of the connection's forwarded ssh-agent, created on first use; undefined if that fails. */
  agentSocket: () => Promise<string | undefined>;
}

/** A client sets this variable to a terminal's name to get a shell that outlives the connection. */
const terminalNameVariable = 'CDE_TERMINAL';
const isTerminalName = (name: string | undefined): name is string =>
  name !== undefined && /^[A-Za-z0-9._-]{1,64}$/.test(name);

/** More than any terminal type needs; it becomes an environment variable. */
const maxTermBytes = 1024;

/** Serves a session channel: a shell, a command or SFTP. */
export function serveSession(session: Session, context: SessionContext): { hangUp(): void } {
  const requested = makeRequestedEnvironment();
  let terminal: (Terminal & { term: string }) | undefined;
  let agentSocket: Promise<string | undefined> = Promise.resolve(undefined);
  let running: Running | undefined;
  let gone = false;
  let outputClosed = false;

  keepRequestsAfterEof(session);

  function onRequest(request: SessionRequest): boolean {
    switch (request.type) {
      case 'env':
        return requested.set(request.name, request.value);
      case 'pty':
        if (request.term.includes('\0') || request.term.length > maxTermBytes) return false;
        terminal = { ...request, term: request.term || 'dumb' };
        return true;
      case 'window-change':
        if (!terminal) return false;
        terminal.columns = request.columns;
        terminal.rows = request.rows;
        running?.resize(request.columns, request.rows);
        return true;
      case 'signal':
        running?.signal(request.name);
        return true;
      case 'auth-agent':
        agentSocket = context.agentSocket();
        return true;
      case 'end-of-write':
        outputClosed = true;
        running?.closeOutput();
        return true;
    }
  }
  onSessionRequest(session, onRequest);

  /** The channel is accepted at once, so that no input is lost while the job starts. */
  async function start(channel: ServerChannel, command: Buffer | undefined) {
    const ended = context.sessions.open(command === undefined ? 'shell' : 'exec');
    channel.on('error', () => {});
    const socket = await agentSocket;
    if (gone) {
      ended();
      return;
    }
    const workspace = context.workspace();
    const shell = loginShell();
    const folder = existsSync(workspace.home) ? workspace.home : '/';
    const { activity, openTerminals, username } = context;
    const job: Job = {
      shell,
      folder,
      openTerminal: openTerminals.add,
      observe: (shown) =>
        makeJobActivity({
          activity,
          by: username,
          ...(command !== undefined && { command: command.toString('latin1') }),
          ...(shown && { terminal: shown }),
        }),
      ...(command === undefined ? {} : { command }),
      rawEnvironment: requested.raw,
      environment: sessionEnvironment(workspace, {
        shell,
        requested: requested.values,
        overSsh: true,
        own: context.own,
        ...(terminal ? { term: terminal.term } : {}),
        ...(socket ? { authSocket: socket } : {}),
      }),
    };
    const login = loginArguments(shell);
    const name = requested.values[terminalNameVariable];
    const persistent =
      terminal && command === undefined && isTerminalName(name)
        ? await context.persistentTerminals()
        : undefined;
    if (gone) {
      ended();
      return;
    }
    running = !terminal
      ? runPiped(channel, job, context.pool, login)
      : persistent
        ? persistent.attach(name!, channel, job, terminal, login)
        : runInTerminal(channel, job, terminal, login);
    if (outputClosed) running.closeOutput();
    await running.done;
    ended();
  }

  session.on('shell', (accept) => {
    void start(accept(), undefined);
  });
  session.on('exec', (accept, _reject, info) => {
    // requests.ts passes the command as bytes.
    void start(accept(), info.command as unknown as Buffer);
  });
  session.on('subsystem', (accept, reject, info) => {
    if (info.name !== 'sftp') {
      reject?.();
      return;
    }
    const channel = accept();
    const ended = context.sessions.open('sftp' satisfies SessionKind);
    channel.on('error', () => {});
    void serveSftp(channel, {
      home: context.workspace().home,
      onTransfer: () => context.activity.record('sync', context.username()),
    }).finally(() => {
      ended();
      channel.exit(0);
      channel.end();
    });
    if (outputClosed) channel.destroy();
    running = {
      signal() {},
      resize() {},
      closeOutput: () => channel.destroy(),
      hangUp() {},
      done: Promise.resolve(),
    };
  });

  function hangUp() {
    if (gone) return;
    gone = true;
    running?.hangUp();
  }
  session.on('close', hangUp);
  return { hangUp };
}
