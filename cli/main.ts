import { run } from './run.ts';

/**
 * Runs a command line; resolves to the exit code. The form that `cde` itself writes into ssh's ProxyCommand is
 * known here by sight: every ssh connection passes through it, and the parser would be half of its start.
 */
async function main(words: string[]): Promise<number> {
  if (words.length === 3 && words[0] === 'ssh' && words[1] === '--stdio') {
    const { runStdio } = await import('./ssh/stdio.ts');
    return run({ json: false }, (context) => runStdio(context, words[2]!));
  }
  const { parseAndRun } = await import('./program.ts');
  return parseAndRun(words);
}

process.exitCode = await main(process.argv.slice(2));
