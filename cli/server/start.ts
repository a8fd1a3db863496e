import { type ChildProcess, spawn } from 'node:child_process';
import { constants } from 'node:os';
import { fileURLToPath } from 'node:url';
import type { Context } from '../context.ts';
import { Failure, toFailure } from '../failure.ts';
import { completeFirstStart, type Ready, welcomeBack } from './first-start.ts';

const serverMain = fileURLToPath(new URL('../../server/main.ts', import.meta.url));

/** npm passes Ctrl-C on to its child, which the terminal has told as well: within this time it is one and the same. */
const sameSignalMs = 1_000;

/**
 * Runs the server as a child, in the foreground, and completes a first start through the ordinary API.
 * Resolves to the server's exit code. The child is in a process group of its own, so that Ctrl-C reaches
 * it once, through here; when this process is killed, the channel between them breaks and the server stops.
 */
export async function start(context: Context, input: { words: string[] }): Promise<number | undefined> {
  const flags = input.words.filter((word) => word !== '--json');
  context.leaveInterrupts();
  const child = spawn(process.execPath, [serverMain, ...flags], {
    detached: true,
    stdio: ['ignore', context.out.json ? 'ignore' : 'inherit', 'inherit', 'ipc'],
    env: serverEnvironment(context, flags),
  });
  const stopped = new AbortController();
  const exit = exitOf(child);
  passSignals(child, () => stopped.abort());
  child.on('message', (message: Ready | { type: string }) => {
    if (message.type !== 'ready') return;
    // Ctrl-C, or a server that ends meanwhile, ends these steps; the next start takes them up again.
    const steps: Context = { ...context, signal: AbortSignal.any([stopped.signal, ended.signal]) };
    greet(steps, message as Ready, child).catch((error) => {
      if (steps.signal.aborted) return;
      context.out.fail(toFailure(error));
      const { url, firstStart } = message as Ready;
      context.out.note('The server runs all the same; the next start tries again. Ctrl-C stops it.');
      // An access URL that this machine cannot reach, for one: the person may from theirs.
      if (firstStart) context.out.note(`To sign in once: ${url}/sign-in#code=${firstStart.code}`);
    });
  });
  const ended = new AbortController();
  const code = await exit;
  ended.abort();
  return code;
}

async function greet(context: Context, ready: Ready, child: ChildProcess): Promise<void> {
  if (ready.firstStart) {
    await completeFirstStart(context, ready);
    if (child.connected) child.send({ type: 'first-start-done' });
  } else {
    await welcomeBack(context, ready);
  }
}

/** On a terminal the server keeps its log to what needs attention, unless told otherwise: a person reads it. */
function serverEnvironment(context: Context, flags: string[]): NodeJS.ProcessEnv {
  const chosen = context.env.CDE_LOG_LEVEL || flags.some((flag) => flag.startsWith('--log-level'));
  return !chosen && context.out.terminal ? { ...context.env, CDE_LOG_LEVEL: 'warn' } : context.env;
}

function exitOf(child: ChildProcess): Promise<number> {
  return new Promise((resolve, reject) => {
    child.on('error', (cause) =>
      reject(
        new Failure('server-not-started', 'The server could not be started.', {
          detail: cause.message,
          cause,
        }),
      ),
    );
    child.on('exit', (code, signal) => resolve(code ?? 128 + (signal ? constants.signals[signal] : 0)));
  });
}

function passSignals(child: ChildProcess, stopping: () => void): void {
  let last = Number.NEGATIVE_INFINITY;
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(signal, () => {
      stopping();
      if (performance.now() - last < sameSignalMs) return;
      last = performance.now();
      // A terminal that closes wants the same as Ctrl-C; the server knows no other word for it.
      child.kill(signal === 'SIGHUP' ? 'SIGTERM' : signal);
    });
}
