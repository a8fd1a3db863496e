import { isUtf8 } from 'node:buffer';
import { existsSync } from 'node:fs';
import { userInfo } from 'node:os';
import { basename } from 'node:path';
import type { AgentManifest } from '@cde/api/agent.ts';
import { agentSocketVariable } from '@cde/api/keep-awake.ts';

/** The parts of the current manifest that a session needs. */
export type Workspace = Pick<AgentManifest, 'workspaceId' | 'workspace' | 'username' | 'home' | 'env'>;

/** What the agent offers to programs in the workspace. */
export interface OwnTools {
  /** A Unix socket that keeps the workspace awake, among others. */
  socket: string;
  /** A folder with `cde`. The last in PATH, so that a `cde` of the image is preferred. */
  folder: string;
}

/** Variables of the agent's process that sessions do not inherit. */
const ownVariables =
  /^(CDE_SERVER_URL|CDE_AGENT_.*|NODE_OPTIONS|NODE_COMPILE_CACHE|NODE_ENV|NODE_CHANNEL_.*|npm_.*|INIT_CWD|SHLVL|OLDPWD|PWD|_|TERM|TERMCAP|COLUMNS|LINES|TMUX.*|STY|SSH_.*)$/;

/**
 * Variables that describe the session itself, which a client's `SendEnv`/`SetEnv` cannot replace. All others are accepted:
 * a client can run any command anyway, so a narrower AcceptEnv would protect nothing.
 */
const fixedVariables =
  /^(HOME|USER|LOGNAME|SHELL|PATH|PWD|OLDPWD|SHLVL|MAIL|IFS|ENV|BASH_ENV|LD_.*|SSH_(CONNECTION|CLIENT|TTY|AUTH_SOCK)|CDE_(WORKSPACE|WORKSPACE_ID|AGENT_SOCKET))$/;

const requestLimits = { count: 256, bytes: 128 * 1024 };

/** Collects a client's `env` requests; `set` returns false if a variable is rejected. */
export function makeRequestedEnvironment(): {
  set(name: string, value: Buffer): boolean;
  values: Record<string, string>;
  /** Values that are not UTF-8, which Node cannot pass to a process. */
  raw: Record<string, Buffer>;
} {
  const values: Record<string, string> = {};
  const raw: Record<string, Buffer> = {};
  let count = 0;
  let bytes = 0;
  return {
    values,
    raw,
    set(name, value) {
      if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(name) || fixedVariables.test(name)) return false;
      if (value.includes(0)) return false;
      count += 1;
      bytes += name.length + value.length;
      if (count > requestLimits.count || bytes > requestLimits.bytes) return false;
      delete values[name];
      delete raw[name];
      if (isUtf8(value)) values[name] = value.toString();
      else raw[name] = value;
      return true;
    },
  };
}

/** The login shell: from the user's passwd entry, SHELL, bash or sh, in this order. */
export function loginShell(): string {
  const candidates: (string | null | undefined)[] = [];
  try {
    candidates.push(userInfo().shell);
  } catch {
    // The user has no passwd entry.
  }
  candidates.push(process.env.SHELL, '/bin/bash', '/usr/bin/bash');
  for (const candidate of candidates) {
    if (!candidate || /\/(nologin|false)$/.test(candidate)) continue;
    if (existsSync(candidate)) return candidate;
  }
  return '/bin/sh';
}

const loginFlagShells = new Set('bash zsh sh dash ash ksh mksh oksh fish tcsh csh nu xonsh yash'.split(' '));

/** The arguments that make `shell` a login shell, since argv[0] cannot start with a hyphen here. */
export function loginArguments(shell: string): string[] {
  return loginFlagShells.has(basename(shell)) ? ['-l'] : [];
}

/**
 * The environment of a session: the image's (which keeps its PATH), overridden by the manifest's, the client's and
 * finally the session's own variables.
 */
export function sessionEnvironment(
  workspace: Workspace,
  session: {
    shell: string;
    requested?: Record<string, string>;
    term?: string;
    authSocket?: string;
    overSsh?: boolean;
    own?: OwnTools | undefined;
  },
): Record<string, string> {
  const environment: Record<string, string> = {};
  for (const [name, value] of Object.entries(process.env)) {
    if (value !== undefined && !ownVariables.test(name)) environment[name] = value;
  }
  environment.PATH ??= '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
  Object.assign(environment, workspace.env, session.requested, {
    HOME: workspace.home,
    USER: workspace.username,
    LOGNAME: workspace.username,
    SHELL: session.shell,
    CDE_WORKSPACE: workspace.workspace,
    CDE_WORKSPACE_ID: workspace.workspaceId,
  });
  if (session.overSsh) {
    // There is no TCP connection, but scripts check that these are set and well-formed.
    environment.SSH_CONNECTION = '127.0.0.1 65535 127.0.0.1 22';
    environment.SSH_CLIENT = '127.0.0.1 65535 22';
  }
  if (session.own) {
    environment[agentSocketVariable] = session.own.socket;
    environment.PATH += `:${session.own.folder}`;
  }
  if (session.term) environment.TERM = session.term;
  if (session.authSocket) environment.SSH_AUTH_SOCK = session.authSocket;
  return environment;
}
