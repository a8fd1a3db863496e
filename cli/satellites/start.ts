import { spawn } from 'node:child_process';
import type { Context } from '../command/context.ts';
import { exitOf, passSignals } from '../processes/child.ts';
import { satelliteProgram } from '../processes/programs.ts';

/** Runs the satellite as a foreground child; resolves to its exit code. */
export async function start(context: Context, input: { words: string[] }): Promise<number | undefined> {
  context.leaveInterrupts();
  const child = spawn(
    process.execPath,
    [satelliteProgram(), ...input.words.filter((word) => word !== '--json')],
    {
      detached: true,
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      env: context.env,
    },
  );
  passSignals(child, () => {});
  return exitOf(child, 'satellite');
}
