import { spawn } from 'node:child_process';
import { constants } from 'node:os';
import type { Context } from '../command/context.ts';
import { Failure } from '../failure/failure.ts';

/** Maximum retained output of a program. */
const maxTailLength = 8_192;

/**
 * Runs a local program on our terminal; resolves to its exit code (128 + signal number). With `quiet` its output is not
 * shown, and the end of it is in `said`. `interrupted`: Ctrl-C was pressed meanwhile.
 */
export function runForeground(
  context: Context,
  program: string,
  args: readonly string[],
  options: { env: NodeJS.ProcessEnv; quiet?: boolean },
): Promise<{ code: number; said: string; interrupted: boolean }> {
  context.leaveInterrupts();
  // Before the program exists: a signal that arrived between the two would kill only this process.
  const pass = (signal: NodeJS.Signals) => child.kill(signal);
  const passed = ['SIGTERM', 'SIGHUP'] as const;
  for (const signal of passed) process.on(signal, pass);
  // The program also gets Ctrl-C from the terminal and handles it.
  let interrupted = false;
  const note = () => {
    interrupted = true;
  };
  process.on('SIGINT', note);
  const child = spawn(program, args, {
    stdio: options.quiet ? ['ignore', 'pipe', 'pipe'] : 'inherit',
    env: options.env,
  });
  let said = '';
  for (const stream of [child.stdout, child.stderr])
    stream?.setEncoding('utf8').on('data', (text: string) => {
      said = (said + text).slice(-maxTailLength);
    });
  return new Promise<{ code: number; said: string; interrupted: boolean }>((resolve, reject) => {
    child.on('error', (cause: NodeJS.ErrnoException) =>
      reject(
        new Failure('command-not-started', `${program} could not be started.`, {
          detail: cause.code === 'ENOENT' ? 'There is no such program on the PATH.' : cause.message,
          cause,
        }),
      ),
    );
    child.on('close', (code, signal) =>
      resolve({ code: code ?? 128 + (signal ? constants.signals[signal] : 0), said, interrupted }),
    );
  }).finally(() => {
    for (const signal of passed) process.off(signal, pass);
    process.off('SIGINT', note);
  });
}
