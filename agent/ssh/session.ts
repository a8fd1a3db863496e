import { existsSync } from 'node:fs';
import type { ServerChannel, Session } from 'ssh2';
import type { Activity } from '../activity/activity.ts';
import { makeJobActivity } from '../activity/job-activity.ts';
import type { OpenTerminals } from '../activity/open-terminals.ts';
import type { Sessions } from '../sessions.ts';
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
  return new ServedSession(session, context);
}

/** What a client has asked for on its channel, and what runs there. */
class ServedSession {
  readonly #context: SessionContext;
  readonly #requested = makeRequestedEnvironment();
  #terminal: (Terminal & { term: string }) | undefined;
  #agentSocket: Promise<string | undefined> = Promise.resolve(undefined);
  #running: Running | undefined;
  #gone = false;
  #outputClosed = false;

  constructor(session: Session, context: SessionContext) {
    this.#context = context;
    keepRequestsAfterEof(session);
    onSessionRequest(session, (request) => this.#onRequest(request));
    session.on('shell', (accept) => {
      void this.#start(accept(), undefined);
    });
    session.on('exec', (accept, _reject, info) => {
      // requests.ts passes the command as bytes.
      void this.#start(accept(), info.command as unknown as Buffer);
    });
    session.on('subsystem', (accept, reject, info) => {
      if (info.name === 'sftp') this.#startSftp(accept());
      else reject?.();
    });
    session.on('close', () => this.hangUp());
  }

  hangUp(): void {
    if (this.#gone) return;
    this.#gone = true;
    this.#running?.hangUp();
  }

  #onRequest(request: SessionRequest): boolean {
    switch (request.type) {
      case 'env':
        return this.#requested.set(request.name, request.value);
      case 'pty':
        if (request.term.includes('\0') || request.term.length > maxTermBytes) return false;
        this.#terminal = { ...request, term: request.term || 'dumb' };
        return true;
      case 'window-change':
        if (!this.#terminal) return false;
        this.#terminal.columns = request.columns;
        this.#terminal.rows = request.rows;
        this.#running?.resize(request.columns, request.rows);
        return true;
      case 'signal':
        this.#running?.signal(request.name);
        return true;
      case 'auth-agent':
        this.#agentSocket = this.#context.agentSocket();
        return true;
      case 'end-of-write':
        this.#outputClosed = true;
        this.#running?.closeOutput();
        return true;
    }
  }

  /** The channel is accepted at once, so that no input is lost while the job starts. */
  async #start(channel: ServerChannel, command: Buffer | undefined): Promise<void> {
    const ended = this.#context.sessions.open(command === undefined ? 'shell' : 'exec');
    channel.on('error', () => {});
    const socket = await this.#agentSocket;
    if (this.#gone) return ended();
    const job = this.#jobFor(command, socket);
    const name = this.#requested.values[terminalNameVariable];
    const persistent =
      this.#terminal && command === undefined && isTerminalName(name)
        ? await this.#context.persistentTerminals()
        : undefined;
    if (this.#gone) return ended();
    const login = loginArguments(job.shell);
    this.#running = !this.#terminal
      ? runPiped(channel, job, this.#context.pool, login)
      : persistent
        ? persistent.attach(name!, channel, job, this.#terminal, login)
        : runInTerminal(channel, job, this.#terminal, login);
    if (this.#outputClosed) this.#running.closeOutput();
    await this.#running.done;
    ended();
  }

  #jobFor(command: Buffer | undefined, authSocket: string | undefined): Job {
    const { activity, openTerminals, own, username, workspace: current } = this.#context;
    const workspace = current();
    const shell = loginShell();
    return {
      shell,
      folder: existsSync(workspace.home) ? workspace.home : '/',
      openTerminal: openTerminals.add,
      observe: (shown) =>
        makeJobActivity({
          activity,
          by: username,
          ...(command !== undefined && { command: command.toString('latin1') }),
          ...(shown && { terminal: shown }),
        }),
      ...(command !== undefined && { command }),
      rawEnvironment: this.#requested.raw,
      environment: sessionEnvironment(workspace, {
        shell,
        requested: this.#requested.values,
        overSsh: true,
        own,
        ...(this.#terminal && { term: this.#terminal.term }),
        ...(authSocket !== undefined && { authSocket }),
      }),
    };
  }

  #startSftp(channel: ServerChannel): void {
    const { activity, sessions, username, workspace } = this.#context;
    const ended = sessions.open('sftp');
    channel.on('error', () => {});
    void serveSftp(channel, {
      home: workspace().home,
      onTransfer: () => activity.record('sync', username()),
    }).finally(() => {
      ended();
      channel.exit(0);
      channel.end();
    });
    if (this.#outputClosed) channel.destroy();
    this.#running = {
      signal() {},
      resize() {},
      closeOutput: () => channel.destroy(),
      hangUp() {},
      done: Promise.resolve(),
    };
  }
}
