import { createInterface } from 'node:readline/promises';
import { Writable } from 'node:stream';
import type { Context } from './context.ts';
import { exitCodes } from './exit-codes.ts';
import { Failure, usage } from './failure.ts';
import { clean } from './output.ts';

/** Whether a question reaches a person who can answer it. */
export function canAsk({ out }: Pick<Context, 'out'>): boolean {
  return process.stdin.isTTY === true && process.stderr.isTTY === true && !out.json;
}

/** Asks on the terminal; `yes` answers beforehand. Throws `not-confirmed` on a no, a usage error where nobody can answer. */
export async function confirm(context: Context, question: string, yes: boolean): Promise<void> {
  if (yes) return;
  if (!canAsk(context))
    throw usage(`${question} Nobody can answer here.`, 'Add --yes to go on without being asked.');
  const answer = await ask(context, `${question} [y/N] `);
  if (!/^y(es)?$/i.test(answer.trim()))
    throw new Failure('not-confirmed', 'Nothing was done.', { exitCode: exitCodes.failure });
}

/** A question whose answer is yes unless the person says no. Only where `canAsk`. */
export async function askYesNo(context: Context, question: string): Promise<boolean> {
  return isYes(await ask(context, `${clean(question)} [Y/n] `));
}

/** Enter is a yes. */
export const isYes = (answer: string): boolean => /^(y(es)?)?$/i.test(answer.trim());

/** One of a list, by its number or its value; `initial` is what Enter takes. Only where `canAsk`. */
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

/** A line from the terminal; asked again while `check` names a fault in it. Only where `canAsk`. */
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
