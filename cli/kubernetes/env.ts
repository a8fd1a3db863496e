import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Context } from '../context.ts';
import { Failure } from '../failure.ts';
import { openPorts } from '../ssh/port-forward.ts';
import { kubeCredentials } from './credentials.ts';
import { contextOf } from './kubeconfig.ts';
import { alone } from './merge.ts';

/** Runs a command here, with what it needs of the workspace; resolves to its exit code. */
export async function env(
  context: Context,
  input: { workspace: string; command: string[]; forward: string[]; start: boolean },
): Promise<number> {
  const credentials = await kubeCredentials(context, input.workspace);
  // A bare port goes to any free one here: the local one may be taken by the same program.
  const specs = input.forward.map((spec) => (/^\d+$/.test(spec) ? `0:${spec}` : spec));
  const forwards =
    specs.length === 0
      ? null
      : await openPorts(context, {
          workspace: input.workspace,
          ports: specs,
          address: '127.0.0.1',
          start: input.start,
        });
  const folder = await mkdtemp(join(tmpdir(), 'cde-env-'));
  try {
    const file = join(folder, 'kubeconfig');
    await writeFile(file, alone(contextOf(context, input.workspace, credentials)), { mode: 0o600 });
    const [program, ...args] = input.command;
    context.leaveInterrupts();
    const child = spawn(program!, args, {
      stdio: 'inherit',
      env: {
        ...context.env,
        KUBECONFIG: file,
        CDE_URL: context.server().url,
        CDE_WORKSPACE: input.workspace,
        CDE_NAMESPACE: credentials.namespace,
        ...Object.fromEntries(
          (forwards?.ports ?? []).map(({ spec, local }) => [`CDE_PORT_${spec.remote}`, `127.0.0.1:${local}`]),
        ),
      },
    });
    // Without the session its ports are dead, but the command may not need them any more.
    forwards?.ended.catch((error: Error) => context.out.note(`The ports are gone: ${error.message}`));
    const pass = (signal: NodeJS.Signals) => child.kill(signal);
    for (const signal of ['SIGTERM', 'SIGHUP'] as const) process.on(signal, pass);
    // Ctrl-C reaches the child by the terminal as well; it decides what it means.
    process.on('SIGINT', () => {});
    return await new Promise((done, reject) => {
      child.on('error', (cause: NodeJS.ErrnoException) =>
        reject(
          new Failure('command-not-started', `${program} could not be started.`, {
            detail: cause.code === 'ENOENT' ? 'There is no such program on the PATH.' : cause.message,
            cause,
          }),
        ),
      );
      child.on('exit', (code, signal) => done(code ?? 128 + (signal ? constants.signals[signal] : 0)));
    });
  } finally {
    forwards?.close();
    await rm(folder, { recursive: true, force: true });
  }
}
