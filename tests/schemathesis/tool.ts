import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);
const version = '4.32.5';
const cacheDir = process.env.CDE_CACHE_DIR ?? join(homedir(), '.cache', 'cde');

/** The path of the program, which is installed into the cache the first time. Throws one line that says what is missing. */
export async function schemathesis(): Promise<string> {
  const folder = join(cacheDir, `schemathesis-${version}`);
  const program = join(folder, 'bin', 'schemathesis');
  if (existsSync(program)) return program;
  try {
    await run('python3', ['-m', 'venv', folder]);
  } catch (error) {
    const why = (error as { stderr?: string }).stderr?.trim().split('\n').at(-1) || (error as Error).message;
    throw new Error(`test:api needs python3 with venv (Debian: apt-get install python3-venv): ${why}`);
  }
  await run(join(folder, 'bin', 'pip'), ['install', '--quiet', `schemathesis==${version}`], {
    timeout: 400_000,
  });
  return program;
}
