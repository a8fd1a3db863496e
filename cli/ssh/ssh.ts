import { spawn } from 'node:child_process';
import { constants } from 'node:os';
import type { Context } from '../context.ts';
import { Failure, usage } from '../failure.ts';
import { sshHost } from '../workspaces/reference.ts';
import { hostOptions, stdioFlags } from './client-options.ts';
import { handDown, makeOpening, type PathChoice } from './opening.ts';

export async function ssh(
  context: Context,
  input: {
    workspace: string;
    command: string[] | undefined;
    start: boolean;
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
    return runStdio(context, input.workspace, {
      path: input.path as PathChoice | undefined,
      verbose: input.verbose,
    });
  }
  if (input.workspace.startsWith('-') || /[\s'"\\]/.test(input.workspace))
    throw usage(`${JSON.stringify(input.workspace)} is not the name of a workspace.`);
  const opening = await makeOpening(context, input.workspace, input.start);
  const host = sshHost(input.workspace);
  const each = (flag: string, values: string[]) => values.flatMap((value) => [flag, value]);
  const args = [
    ...hostOptions(context.env, host, [], stdioFlags(input)).flatMap(([key, value]) => [
      '-o',
      `${key}=${value}`,
    ]),
    ...each('-o', input.option),
    '-o',
    `User=${opening.username}`,
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
  return runClient(context, args, {
    ...handDown(input.workspace, opening),
    // The ProxyCommand inherits it: the same server, though --url was given here.
    CDE_URL: context.server().url,
  });
}

/** Runs the machine's ssh on this terminal; resolves to its exit code, which is the remote command's. */
function runClient(context: Context, args: string[], extra: Record<string, string>): Promise<number> {
  context.leaveInterrupts();
  const child = spawn('ssh', args, { stdio: 'inherit', env: { ...context.env, ...extra } });
  for (const signal of ['SIGTERM', 'SIGHUP'] as const) process.on(signal, () => child.kill(signal));
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
