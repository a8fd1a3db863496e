import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { Context } from '../command/context.ts';
import { type Result, result } from '../command/result.ts';

const serverMain = fileURLToPath(new URL('../../server/main.ts', import.meta.url));

/** Checks the settings with the server's own program. */
export async function checkConfig(context: Context, input: { words: string[] }): Promise<Result | number> {
  const words = input.words.filter((word) => word !== '--json');
  const child = spawn(process.execPath, [serverMain, 'check-config', ...words], {
    stdio: ['ignore', context.out.json ? 'ignore' : 'inherit', 'inherit'],
    env: context.env,
  });
  const [code] = (await once(child, 'close')) as [number | null];
  return code === 0 ? result({ valid: true }, () => []) : (code ?? 1);
}
