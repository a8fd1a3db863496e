// Requirements of the machine (Linux, root, Debian packages), and running programs on it.
import { spawn, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';

/** Prints progress to stderr; stdout is for results. */
export const logProgress = (line: string): void => {
  process.stderr.write(`${line}\n`);
};

/** An error that a person can fix; shown as one line without a stack. */
export class SetupError extends Error {}

/** Runs a program and returns its stdout; throws with its stderr when it fails. */
export function run(
  program: string,
  args: string[],
  options: { input?: string; env?: NodeJS.ProcessEnv; cwd?: string } = {},
): string {
  const done = spawnSync(program, args, {
    encoding: 'utf8',
    maxBuffer: 256 * 1024 * 1024,
    ...options,
  });
  if (done.error) throw new Error(`${program} could not be run: ${done.error.message}`);
  if (done.status !== 0) {
    throw new Error(
      `${program} ${args.slice(0, 6).join(' ')} failed (${done.status}): ${done.stderr.trim()}`,
    );
  }
  return done.stdout;
}

/** Like run(), without blocking this process. */
export function runAsync(
  program: string,
  args: string[],
  options: { env?: NodeJS.ProcessEnv; cwd?: string } = {},
): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { ...options, stdio: ['ignore', 'pipe', 'pipe'] });
    let out = '';
    let errors = '';
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
      out += chunk;
    });
    child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
      errors = (errors + chunk).slice(-20_000);
    });
    child.on('error', reject);
    child.on('close', (code) =>
      code === 0
        ? resolve(out)
        : reject(new Error(`${program} ${args.slice(0, 6).join(' ')} failed (${code}): ${errors.trim()}`)),
    );
  });
}

/** Whether a command succeeds, for those whose failure means "does not exist". */
export const succeeds = (program: string, ...args: string[]): boolean =>
  spawnSync(program, args, { stdio: 'ignore' }).status === 0;

/** Throws a SetupError if the machine cannot run a cluster. */
export function requireLinuxRoot(): void {
  if (process.platform !== 'linux')
    throw new SetupError(`The test cluster needs Linux; this is ${process.platform}`);
  if (process.getuid?.() !== 0)
    throw new SetupError('The test cluster needs root, to start containers and bridges');
}

/** Installs the missing Debian packages. */
export function requirePackages(...packages: string[]): void {
  const missing = packages.filter((name) => {
    const shown = spawnSync('dpkg', ['-s', name], { encoding: 'utf8' });
    return !shown.stdout?.includes('install ok installed');
  });
  if (missing.length === 0) return;
  if (!existsSync('/usr/bin/apt-get')) {
    throw new SetupError(
      `The test cluster needs the Debian packages ${missing.join(', ')}, and this machine has no apt`,
    );
  }
  logProgress(`Installing ${missing.join(', ')}`);
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  const install = ['install', '-y', '-qq', '--no-install-recommends', ...missing];
  // The package lists may be outdated or missing.
  if (spawnSync('apt-get', install, { env, stdio: 'ignore' }).status === 0) return;
  run('apt-get', ['update', '-qq'], { env });
  run('apt-get', install, { env });
}
