import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Context } from '../command/context.ts';
import { line, type Result, result } from '../command/result.ts';
import { serverProgram } from '../processes/programs.ts';

/** Creates the link with the server's own program, which needs the database but not a running API. */
export async function signInLink(context: Context, input: { words: string[] }): Promise<Result | number> {
  const words = input.words.filter((word) => word !== '--json');
  const child = spawn(process.execPath, [serverProgram(), 'sign-in-link', ...words], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: context.env,
  });
  let text = '';
  child.stdout.on('data', (chunk: Buffer) => {
    text += chunk.toString();
  });
  const [code] = (await once(child, 'close')) as [number | null];
  const url = text.trim();
  return code === 0 ? result({ url }, () => [line(url)]) : (code ?? 1);
}
