import {
  type Argument,
  type Command,
  type Completes,
  flagOf,
  type Option,
  type Tree,
} from '../command/command.ts';
import { commonOptions } from '../command/common-options.ts';

/** An option for the completion scripts. */
export interface Word {
  /** `--template`, `-t`. */
  flags: string[];
  help: string;
  takesValue: boolean;
  completes: Completes | undefined;
}

/** A command for the completion scripts. `name` is '' for `cde` itself, a noun, or a command. */
export interface Node {
  name: string;
  summary: string;
  /** The words that can follow, with their summaries. */
  verbs: [string, string][];
  options: Word[];
  /** The kinds of its arguments; the last one repeats if `many`. */
  values: (Completes | undefined)[];
}

/** Options with a value that are accepted before the command. */
export const valueOptions = ['--server', '--url'] as const;

/** The command data, as a list of nodes. */
export function makeNodes({ commands, nouns }: Tree): Node[] {
  const shown = commands.filter((command) => !command.hidden);
  const first = new Map<string, string>();
  for (const { name, summary } of shown) {
    const [word, verb] = name.split(' ') as [string, string?];
    first.set(word, verb === undefined ? summary : nouns[word]!.summary);
  }
  const verbsOf = (noun: string): [string, string][] =>
    shown
      .filter(({ name }) => name.startsWith(`${noun} `))
      .map(({ name, summary }) => [name.slice(noun.length + 1), summary]);
  return [
    { name: '', summary: '', verbs: [...first], options: [], values: [] },
    ...Object.entries(nouns).map(([noun, { summary }]) => ({
      name: noun,
      summary,
      verbs: verbsOf(noun),
      // A noun can also be a command.
      options: shown.filter(({ name }) => name === noun).flatMap(optionsOf),
      values: [],
    })),
    // Aliases are completed, but not offered.
    ...shown
      .filter(({ name }) => !Object.hasOwn(nouns, name))
      .flatMap((command) =>
        [command.name, ...(command.aliases ?? [])].map((name) => ({
          name,
          summary: command.summary,
          verbs: [],
          options: optionsOf(command),
          values: command.rawCompletes ? [command.rawCompletes] : valuesOf(Object.values(command.arguments)),
        })),
      ),
  ];
}

function optionsOf(command: Command): Word[] {
  const help = {
    flags: ['--help', '-h'],
    help: 'Show help for the command',
    takesValue: false,
    completes: undefined,
  };
  const made = Object.entries<Option>({ ...command.options, ...commonOptions }).map(([key, option]) => ({
    flags: [flagOf(key, option), ...(option.short ? [`-${option.short}`] : [])],
    help: option.help,
    takesValue: ['text', 'number', 'list'].includes(option.kind),
    completes: option.completes,
  }));
  return [...made, help];
}

function valuesOf(given: Argument[]): (Completes | undefined)[] {
  return given.map((argument) => argument.completes);
}
