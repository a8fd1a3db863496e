import { spawn } from 'node:child_process';
import { closeSync, existsSync } from 'node:fs';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { systemErrorReason } from '@cde/api/system-errors.ts';
import type { LogShipper } from './server/logs.ts';
import {
  loginArguments,
  loginShell,
  type OwnTools,
  sessionEnvironment,
  type Workspace,
} from './ssh/environment.ts';
import type { PipePool } from './ssh/jobs/pipes.ts';

export interface ScriptEnd {
  /** Null if a signal ended it or it could not be started. */
  exitCode: number | null;
  signal: string | null;
  timedOut: boolean;
  durationMs: number;
}

/** Time between SIGTERM and SIGKILL for a script that exceeds its time limit. */
const killAfterMs = 5000;
/** How long output is read after the script has ended; background processes may keep the pipes open. */
const lingerMs = 200;
/** Below the kernel's limit of an argument (MAX_ARG_STRLEN); longer scripts are run from a file. */
const maxArgumentBytes = 100_000;

/**
 * Runs the template's startup or shutdown script with the login shell in the home, in its own process group, and logs its output. Resolves when
 * it has ended and its output so far is queued. Aborting `signal` ends it (SIGTERM, then SIGKILL). Background processes
 * keep running and are still logged.
 */
export async function runScript(options: {
  name: 'startup' | 'shutdown';
  script: string;
  timeoutMs: number;
  workspace: Workspace;
  log: LogShipper;
  pool: PipePool;
  /** How the script finds the agent's own tools. */
  own?: OwnTools | undefined;
  signal: AbortSignal;
}): Promise<ScriptEnd> {
  const { name: scriptName, script, workspace, log, signal } = options;
  const shell = loginShell();
  const started = performance.now();
  let folder: string | undefined;
  let command = ['-c', script];
  if (Buffer.byteLength(script) > maxArgumentBytes) {
    folder = await mkdtemp(join(tmpdir(), `cde-${scriptName}-`));
    const path = join(folder, scriptName);
    await writeFile(path, script);
    await chmod(path, 0o700);
    command = [path];
  }
  const pipes = await options.pool.take();
  const child = spawn(shell, [...loginArguments(shell), ...command], {
    cwd: existsSync(workspace.home) ? workspace.home : '/',
    env: sessionEnvironment(workspace, { shell, own: options.own }),
    detached: true,
    stdio: pipes ? ['ignore', pipes.descriptors[1], pipes.descriptors[2]] : ['ignore', 'pipe', 'pipe'],
  });
  for (const descriptor of pipes?.descriptors ?? []) closeSync(descriptor);
  pipes?.stdin.destroy();

  const output: [Readable, 'stdout' | 'stderr'][] = [
    [pipes?.stdout ?? child.stdout!, 'stdout'],
    [pipes?.stderr ?? child.stderr!, 'stderr'],
  ];
  let lastOutput = 0;
  const ended = output.map(([stream, name]) => {
    const writer = log.writer(scriptName, name);
    stream.on('data', (chunk: Buffer) => {
      lastOutput = performance.now();
      writer.write(chunk);
    });
    stream.on('error', () => {});
    return new Promise<void>((resolve) =>
      stream.once('close', () => {
        writer.end();
        resolve();
      }),
    );
  });

  let timedOut = false;
  const kill = (name: NodeJS.Signals) => {
    if (child.pid === undefined) return;
    try {
      process.kill(-child.pid, name);
    } catch {
      // The group has ended.
    }
  };
  let killTimer: NodeJS.Timeout | undefined;
  const stop = () => {
    kill('SIGTERM');
    killTimer ??= setTimeout(() => kill('SIGKILL'), killAfterMs);
  };
  const timer = setTimeout(() => {
    timedOut = true;
    log.line(
      'agent',
      'stderr',
      `The ${scriptName} script did not end within ${options.timeoutMs / 1000} s and was stopped.`,
    );
    stop();
  }, options.timeoutMs);
  if (signal.aborted) stop();
  else signal.addEventListener('abort', stop, { once: true });

  const end = await new Promise<{ exitCode: number | null; signal: string | null }>((resolve) => {
    child.once('exit', (exitCode, name) => resolve({ exitCode, signal: name }));
    child.once('error', (error) => {
      log.line(
        'agent',
        'stderr',
        `The ${scriptName} script could not be started with ${shell}: ${systemErrorReason(error) ?? error.message}`,
      );
      resolve({ exitCode: null, signal: null });
    });
  });
  const durationMs = performance.now() - started;
  clearTimeout(timer);
  // Processes of its group that ignored SIGTERM.
  if (killTimer) kill('SIGKILL');
  clearTimeout(killTimer);
  signal.removeEventListener('abort', stop);
  await settled(Promise.all(ended), () => performance.now() - Math.max(lastOutput, started + durationMs));
  if (folder) await rm(folder, { recursive: true, force: true });
  return { ...end, timedOut, durationMs };
}

/** Waits for the end of the output, or until there was none for a while. */
async function settled(done: Promise<unknown>, quietMs: () => number): Promise<void> {
  let ended = false;
  void done.then(() => {
    ended = true;
  });
  while (!ended && quietMs() < lingerMs) {
    await Promise.race([done, new Promise((resolve) => setTimeout(resolve, lingerMs / 4))]);
  }
}
