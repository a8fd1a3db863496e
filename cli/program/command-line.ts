import { type Command, flagOf, type Option } from '../command/command.ts';
import { commonOptions } from '../command/common-options.ts';
import { usage } from '../failure/failure.ts';

/** Options that are also accepted before the command. */
export interface GlobalOptions {
  json: boolean;
  server?: string;
}

/** Finds the command by name or alias, and the number of words in its name. */
export function findCommand(
  commands: readonly Command[],
  words: readonly string[],
): { command: Command; length: number } | undefined {
  let found: { command: Command; length: number } | undefined;
  for (const command of commands)
    for (const name of [command.name, ...(command.aliases ?? [])]) {
      const parts = name.split(' ');
      // The longest match, because a noun with verbs can be a command itself.
      if (parts.every((part, at) => words[at] === part) && parts.length > (found?.length ?? 0))
        found = { command, length: parts.length };
    }
  return found;
}

/** Removes the global options at the front: `cde --json --server work list`. Throws a usage error. */
export function takeGlobalOptions(words: readonly string[]): { globals: GlobalOptions; rest: string[] } {
  const rest = [...words];
  const globals: GlobalOptions = { json: false };
  for (;;) {
    const match = /^--(json|server|url)(?:=(.*))?$/s.exec(rest[0] ?? '');
    if (!match) return { globals, rest };
    const [, name, attached] = match;
    if (name === 'json') {
      if (attached !== undefined) return { globals, rest };
      globals.json = true;
      rest.shift();
      continue;
    }
    rest.shift();
    const value = attached ?? rest.shift();
    if (!value || (attached === undefined && value.startsWith('-')))
      throw usage(`--${name} needs a value: the name or URL of a server.`, 'List them: cde server list');
    globals.server = value;
  }
}

/**
 * For a command that ends with another program's command line, inserts `--` before it, so that `cde ssh web ls -la`
 * works as with ssh. `words` follow the command's name.
 */
export function endOptions(command: Command, words: readonly string[]): string[] {
  if (!command.endsOptions) return [...words];
  const takesValue = valueFlags(command);
  let positionals = Object.keys(command.arguments).length - 1;
  for (let at = 0; at < words.length; at++) {
    const word = words[at]!;
    if (word === '--') {
      // Omitted optional arguments stay empty, or the other program's words would fill them.
      return [
        ...words.slice(0, at),
        ...Array<string>(optionalBefore(command, positionals)).fill(''),
        ...words.slice(at),
      ];
    }
    if (word.startsWith('--')) {
      if (!word.includes('=') && takesValue.has(word)) at++;
    } else if (word.startsWith('-') && word !== '-') {
      // `-L 80:x`, `-L80:x`, `-tL 80:x`: the value is a separate word if the letter that takes it is the last one.
      const letter = [...word.slice(1)].findIndex((each) => takesValue.has(`-${each}`));
      if (letter >= 0 && letter === word.length - 2) at++;
    } else if (positionals-- === 0) {
      return [...words.slice(0, at), '--', ...words.slice(at)];
    }
  }
  return [...words];
}

/** How many of the `missing` arguments before the other program's command line are optional. */
function optionalBefore(command: Command, missing: number): number {
  const before = Object.values(command.arguments).slice(0, -1);
  return before.slice(before.length - Math.max(0, missing)).filter(({ optional }) => optional).length;
}

function valueFlags(command: Command): Set<string> {
  const flags = new Set<string>(['--url']);
  for (const [key, option] of Object.entries<Option>({ ...command.options, ...commonOptions })) {
    if (!['text', 'number', 'list'].includes(option.kind)) continue;
    flags.add(flagOf(key, option));
    if (option.short) flags.add(`-${option.short}`);
  }
  return flags;
}
