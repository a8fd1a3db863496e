import { type ChildProcess, spawn } from 'node:child_process';
import { getCompileCacheDir } from 'node:module';
import { dirname } from 'node:path';
import type { Context } from '../command/context.ts';
import { toFailure } from '../failure/failure.ts';
import { exitOf, passSignals } from '../processes/child.ts';
import { serverProgram } from '../processes/programs.ts';
import { completeFirstStart, type Ready, welcomeBack } from './first-start.ts';

/**
 * Runs the server as a foreground child, and completes a first start through the ordinary API. Resolves to the server's
 * exit code. The child is in its own process group, so that it gets Ctrl-C once, through this process. If this process
 * is killed, the channel between them breaks and the server stops.
 */
export async function start(context: Context, input: { words: string[] }): Promise<number | undefined> {
  const flags = input.words.filter((word) => word !== '--json');
  context.leaveInterrupts();
  const child = spawn(process.execPath, [serverProgram(), ...flags], {
    detached: true,
    stdio: ['ignore', context.out.json ? 'ignore' : 'inherit', 'inherit', 'ipc'],
    env: serverEnvironment(context, flags),
  });
  const stopped = new AbortController();
  const exit = exitOf(child, 'server');
  passSignals(child, () => stopped.abort());
  child.on('message', (message: Ready | { type: string }) => {
    if (message.type !== 'ready') return;
    // Ctrl-C, or a server that exits meanwhile, ends these steps; the next start continues them.
    const steps: Context = { ...context, signal: AbortSignal.any([stopped.signal, ended.signal]) };
    greet(steps, message as Ready, child).catch((error) => {
      if (steps.signal.aborted) return;
      context.out.fail(toFailure(error));
      const { url, firstStart } = message as Ready;
      context.out.note('The server runs all the same; the next start tries again. Ctrl-C stops it.');
      // For example because this machine cannot reach the access URL, although the user's can.
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

/**
 * The server shares the compile cache, which saves half a second. On a terminal it logs only warnings and errors,
 * unless a level was chosen.
 */
function serverEnvironment(context: Context, flags: string[]): NodeJS.ProcessEnv {
  const isLevelChosen = context.env.CDE_LOG_LEVEL || flags.some((flag) => flag.startsWith('--log-level'));
  const compileCache = getCompileCacheDir();
  return {
    ...context.env,
    // Node adds a folder for its version.
    ...(compileCache && { NODE_COMPILE_CACHE: dirname(compileCache) }),
    ...(!isLevelChosen && context.out.terminal && { CDE_LOG_LEVEL: 'warn' }),
  };
}
