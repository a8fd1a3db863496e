import type { ChildProcess } from 'node:child_process';
import { constants } from 'node:os';
import { Failure } from './failure.ts';

/** npm passes Ctrl-C on to its child, which the terminal has told as well: within this time it is one and the same. */
const sameSignalMs = 1_000;

/** The exit code of a program that runs in the foreground (128 + the signal that ended it); `what`: the server, … */
export function exitOf(child: ChildProcess, what: 'server' | 'satellite'): Promise<number> {
  return new Promise((resolve, reject) => {
    child.on('error', (cause) =>
      reject(
        new Failure(`${what}-not-started`, `The ${what} could not be started.`, {
          detail: cause.message,
          cause,
        }),
      ),
    );
    child.on('exit', (code, signal) => resolve(code ?? 128 + (signal ? constants.signals[signal] : 0)));
  });
}

/**
 * Ctrl-C and the like reach the child once, through here: it is in a process group of its own. When this
 * process is killed, the channel between them breaks and the child ends by itself.
 */
export function passSignals(child: ChildProcess, stopping: () => void): void {
  let last = Number.NEGATIVE_INFINITY;
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(signal, () => {
      stopping();
      if (performance.now() - last < sameSignalMs) return;
      last = performance.now();
      // A terminal that closes wants the same as Ctrl-C; the child knows no other word for it.
      child.kill(signal === 'SIGHUP' ? 'SIGTERM' : signal);
    });
}
