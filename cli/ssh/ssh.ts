import { spawn } from 'node:child_process';
import { constants } from 'node:os';
import { findSharedSession, startBackground } from '../background/client.ts';
import type { Context } from '../command/context.ts';
import { serverEnvironment } from '../connection/connection.ts';
import { Failure, usage } from '../failure/failure.ts';
import { fromSshHost, hostOn } from '../workspaces/reference.ts';
import { hostOptions, stdioFlags } from './client-options.ts';
import type { PathChoice } from './opening.ts';
import { type Start, startChoice } from './start-question.ts';

interface SshInput {
  workspace: string;
  command?: string[] | undefined;
  start: Start;
  forwardAgent?: boolean;
  local?: string[];
  remote?: string[];
  dynamic?: string[];
  option?: string[];
  tty?: boolean;
  withoutTty?: boolean;
  forwardOnly?: boolean;
  verbose?: boolean;
  path?: string | undefined;
}

export async function ssh(
  context: Context,
  input: {
    workspace: string;
    command: string[] | undefined;
    start: boolean;
    noStart: boolean;
    forwardAgent: boolean;
    local: string[];
    remote: string[];
    dynamic: string[];
    option: string[];
    tty: boolean;
    withoutTty: boolean;
    forwardOnly: boolean;
    verbose: boolean;
    stdio: boolean;
    path: string | undefined;
  },
): Promise<number> {
  if (input.stdio) {
    const { runStdio } = await import('./stdio.ts');
    const { alias } = fromSshHost(input.workspace);
    return runStdio(alias === undefined ? context : context.forServer(alias), input.workspace, {
      path: input.path as PathChoice | undefined,
      verbose: input.verbose,
    });
  }
  const run = await connectSsh(context, { ...input, start: startChoice(context, input) });
  return run();
}

/** Makes everything ready, so that what can fail has failed, and returns what runs ssh on this terminal. */
export async function connectSsh(context: Context, input: SshInput): Promise<() => Promise<number>> {
  if (input.workspace.startsWith('-') || /[\s'"\\]/.test(input.workspace))
    throw usage(`${JSON.stringify(input.workspace)} is not the name of a workspace.`);
  const { username, handed } = await prepare(context, input);
  const host = hostOn(context.server(), input.workspace);
  const each = (flag: string, values: string[] = []) => values.flatMap((value) => [flag, value]);
  const flags = stdioFlags({ path: input.path, verbose: input.verbose === true });
  const args = [
    ...hostOptions(context.env, host, [], flags).flatMap(([key, value]) => ['-o', `${key}=${value}`]),
    ...each('-o', input.option),
    '-o',
    `User=${username}`,
    ...(input.forwardAgent ? ['-A'] : []),
    ...(input.tty ? ['-t'] : []),
    ...(input.withoutTty ? ['-T'] : []),
    ...(input.forwardOnly ? ['-N'] : []),
    ...(input.verbose ? ['-v'] : []),
    ...each('-L', input.local),
    ...each('-R', input.remote),
    ...each('-D', input.dynamic),
    host,
    ...(input.command ?? []),
  ];
  return () =>
    runClient(context, args, {
      ...handed,
      // The ProxyCommand inherits it: the same server, though --server was given here.
      ...serverEnvironment(context.server()),
    });
}

/** What ssh needs: the user's name there, and an opening unless the background process has a session already. */
async function prepare(
  context: Context,
  input: Pick<SshInput, 'workspace' | 'start' | 'path' | 'verbose'>,
): Promise<{ username: string; handed: Record<string, string> }> {
  if (!input.verbose) {
    const found = await findSharedSession(context, input.workspace, (input.path ?? 'auto') as PathChoice);
    if (found?.username) return { username: found.username, handed: {} };
    // It comes up while the ticket is on its way.
    if (!found) startBackground(context);
  }
  const { makeHandover, makeOpening } = await import('./opening.ts');
  const opening = await makeOpening(context, input.workspace, input.start);
  return { username: opening.username, handed: makeHandover(input.workspace, opening) };
}

/** Runs the machine's ssh on this terminal; resolves to its exit code, which is the remote command's. */
function runClient(context: Context, args: string[], extra: Record<string, string>): Promise<number> {
  context.leaveInterrupts();
  for (const signal of ['SIGTERM', 'SIGHUP'] as const) process.on(signal, () => child.kill(signal));
  const child = spawn('ssh', args, { stdio: 'inherit', env: { ...context.env, ...extra } });
  return new Promise((resolve, reject) => {
    child.on('error', (cause: NodeJS.ErrnoException) =>
      reject(
        cause.code === 'ENOENT'
          ? new Failure('ssh-not-installed', 'There is no ssh on this machine’s PATH.', {
              hint: 'Install the OpenSSH client (Debian: openssh-client), or use the terminal in the dashboard.',
              cause,
            })
          : cause,
      ),
    );
    child.on('exit', (code, signal) => resolve(code ?? 128 + (signal ? constants.signals[signal] : 0)));
  });
}
