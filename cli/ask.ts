import { createInterface } from 'node:readline/promises';
import { Writable } from 'node:stream';
import type { Context } from './context.ts';
import { exitCodes } from './exit-codes.ts';
import { Failure, usage } from './failure.ts';

/** Asks on the terminal; `yes` answers beforehand. Throws `not-confirmed` on a no, a usage error where nobody can answer. */
export async function confirm(context: Context, question: string, yes: boolean): Promise<void> {
  if (yes) return;
  if (!process.stdin.isTTY || !process.stderr.isTTY || context.out.json)
    throw usage(`${question} Nobody can answer here.`, 'Add --yes to go on without being asked.');
  const answer = await ask(context, `${question} [y/N] `);
  if (!/^y(es)?$/i.test(answer.trim()))
    throw new Failure('not-confirmed', 'Nothing was done.', { exitCode: exitCodes.failure });
}

async function ask(context: Context, question: string, output: NodeJS.WritableStream = process.stderr) {
  const lines = createInterface({ input: process.stdin, output, terminal: true });
  const interrupted = new AbortController();
  lines.on('SIGINT', () =>
    interrupted.abort(new Failure('interrupted', 'Interrupted.', { exitCode: exitCodes.interrupted })),
  );
  lines.on('close', () => interrupted.abort(new Failure('not-confirmed', 'Nothing was entered.')));
  try {
    return await lines.question(question, { signal: AbortSignal.any([context.signal, interrupted.signal]) });
  } catch (error) {
    throw interrupted.signal.aborted ? interrupted.signal.reason : error;
  } finally {
    lines.close();
  }
}

/**
 * Reads secrets: asked for without echo on a terminal, one a line from stdin elsewhere, where the first ones may
 * be left out.
 */
export async function readSecrets(context: Context, ...prompts: string[]): Promise<string[]> {
  if (!process.stdin.isTTY) {
    const lines = (await readStdin()).replace(/\r?\n$/, '').split(/\r?\n/);
    if (lines.at(-1) === '' || lines.length > prompts.length)
      throw usage(`Expected on stdin, one to a line: ${prompts.join(', ')}.`);
    return lines;
  }
  const answers: string[] = [];
  for (const prompt of prompts) {
    process.stderr.write(`${prompt}: `);
    // readline echoes into a stream that goes nowhere.
    const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() });
    answers.push(await ask(context, '', nowhere));
    process.stderr.write('\n');
  }
  return answers;
}

/** All of stdin, as text. */
export async function readStdin(): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of process.stdin) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString('utf8');
}
