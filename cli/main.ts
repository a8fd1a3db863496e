import { run } from './program/run.ts';
import type { PathChoice } from './ssh/opening.ts';
import { fromSshHost } from './workspaces/reference.ts';

/**
 * Runs a command line; resolves to the exit code. The exact form that `cde` writes into ssh's ProxyCommand bypasses the
 * parser, which would be half of the startup time of every ssh connection.
 */
async function main(words: string[]): Promise<number> {
  const flags = words.slice(2, -1);
  const known = words.length >= 3 && words[0] === 'ssh' && words[1] === '--stdio';
  if (known && flags.every((each) => /^--(verbose|path=(auto|relay|direct-tcp|direct-udp))$/.test(each))) {
    const { runStdio } = await import('./ssh/stdio.ts');
    const path = flags.findLast((each) => each.startsWith('--path='))?.slice('--path='.length) as PathChoice;
    const verbose = flags.includes('--verbose');
    const host = words.at(-1)!;
    const { alias } = fromSshHost(host);
    return run({ json: false, ...(alias !== undefined && { server: alias }) }, (context) =>
      runStdio(context, host, { path, verbose }),
    );
  }
  const { parseAndRun } = await import('./program/program.ts');
  return parseAndRun(words);
}

// `cde list | head -1` closes the pipe early.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0);
});
process.stderr.on('error', () => {});
process.exitCode = await main(process.argv.slice(2));
// A lookup that no resolver answers cannot be cancelled, and would keep the process for many seconds.
if (process.getActiveResourcesInfo().includes('GetAddrInfoReqWrap'))
  process.stdout.write('', () => process.exit());
