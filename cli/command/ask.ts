import { createInterface } from 'node:readline/promises';
import { Writable } from 'node:stream';
import { exitCodes } from '../failure/exit-codes.ts';
import { Failure, usage } from '../failure/failure.ts';
import { clean } from '../output/output.ts';
import type { Context } from './context.ts';

/** Whether there is a person to answer questions. */
export function canAsk({ out }: Pick<Context, 'out'>): boolean {
  return process.stdin.isTTY === true && process.stderr.isTTY === true && !out.json;
}

/**
 * Asks on the terminal; `yes` skips the question. Throws `not-confirmed` on a no, or a usage error if nobody can
 * answer.
 */
export async function confirm(context: Context, question: string, yes: boolean): Promise<void> {
  if (yes) return;
  if (!canAsk(context))
    throw usage(`${question} Nobody can answer here.`, 'Add --yes to go on without being asked.');
  const answer = await ask(context, `${question} [y/N] `);
  if (!/^y(es)?$/i.test(answer.trim()))
    throw new Failure('not-confirmed', 'Nothing was done.', { exitCode: exitCodes.failure });
}

/** Asks a question that defaults to yes. Requires `canAsk`. */
export async function askYesNo(context: Context, question: string): Promise<boolean> {
  return isYes(await ask(context, `${clean(question)} [Y/n] `));
}

/** Enter means yes. */
export const isYes = (answer: string): boolean => /^(y(es)?)?$/i.test(answer.trim());

/** Asks for one item of a list, by number or value; `initial` is the default. Requires `canAsk`. */
export async function choose<T extends string>(
  context: Context,
  question: string,
  options: readonly { value: T; label: string }[],
  initial?: T,
): Promise<T> {
  const c = context.out.noteColors;
  const digits = String(options.length).length;
  const width = Math.max(...options.map(({ value }) => value.length));
  context.out.note(question);
  options.forEach(({ value, label }, at) => {
    const number = String(at + 1).padStart(digits);
    context.out.note(`  ${c.cyan(number)}  ${value.padEnd(width)}  ${c.dim(label)}`.trimEnd());
  });
  for (;;) {
    const answer = (await ask(context, `${initial === undefined ? '' : `[${initial}] `}> `)).trim();
    if (answer === '' && initial !== undefined) return initial;
    const found =
      options.find(({ value }) => value === answer) ??
      options[/^\d+$/.test(answer) ? Number(answer) - 1 : -1];
    if (found) return found.value;
    context.out.note(`Type a number from 1 to ${options.length}, or a name.`);
  }
}

/** Asks for a line, again as long as `check` returns an error. Requires `canAsk`. */
export async function askText(
  context: Context,
  question: string,
  check: (answer: string) => string | null,
): Promise<string> {
  for (;;) {
    const answer = (await ask(context, `${question}: `)).trim();
    const fault = check(answer);
    if (fault === null) return answer;
    context.out.note(fault);
  }
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
 * Reads secrets: prompts without echo on a terminal, otherwise one per line from stdin, where the first ones may be
 * omitted.
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
    // readline echoes into a stream that discards it.
    const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() });
    answers.push(await ask(context, '', nowhere));
    process.stderr.write('\n');
  }
  return answers;
}

/** All of stdin, as text. */
async function readStdin(): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of process.stdin) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString('utf8');
}
