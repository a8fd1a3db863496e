import type { ChildProcess } from 'node:child_process';
import { constants } from 'node:os';
import { Failure } from '../failure/failure.ts';

/** npm forwards Ctrl-C to its child, which also gets it from the terminal: signals within this time count as one. */
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
 * Forwards signals such as Ctrl-C to the child, which is in its own process group and so gets them once. If this
 * process is killed, the channel between them breaks and the child exits by itself.
 */
export function passSignals(child: ChildProcess, stopping: () => void): void {
  let last = Number.NEGATIVE_INFINITY;
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(signal, () => {
      stopping();
      if (performance.now() - last < sameSignalMs) return;
      last = performance.now();
      // A closed terminal means the same as Ctrl-C, and the child handles only that signal.
      child.kill(signal === 'SIGHUP' ? 'SIGTERM' : signal);
    });
}
