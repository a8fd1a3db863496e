import { type Argument, type Command, type Completes, flagOf, type Option } from '../command.ts';
import { commands, nouns } from '../commands.ts';
import { commonOptions } from '../common-options.ts';
import type { Context } from '../context.ts';
import { usage } from '../failure.ts';
import { bashScript } from './bash.ts';
import { fishScript } from './fish.ts';
import { zshScript } from './zsh.ts';

/** What a shell needs to know of one option. */
export interface Word {
  /** `--template`, `-t`. */
  flags: string[];
  help: string;
  takesValue: boolean;
  completes: Completes | undefined;
}

/** A command as the scripts see it; `name` is '' for `cde` itself, a noun, or a command. */
export interface Node {
  name: string;
  summary: string;
  /** The words that may follow, with their summaries. */
  verbs: [string, string][];
  options: Word[];
  /** What its arguments are, the last one repeating if `many`. */
  values: (Completes | undefined)[];
}

const scripts: Record<string, (nodes: Node[]) => string> = {
  bash: bashScript,
  zsh: zshScript,
  fish: fishScript,
};

export async function completion(context: Context, input: { shell: string }): Promise<number | undefined> {
  const script = Object.hasOwn(scripts, input.shell) ? scripts[input.shell] : undefined;
  if (!script)
    throw usage(`There is no completion for ${JSON.stringify(input.shell)}.`, 'Choose bash, zsh or fish.');
  const text = script(makeNodes());
  if (context.out.json) context.out.printJson({ shell: input.shell, script: text });
  else context.out.print(text);
  return undefined;
}

/** The command data, as a list of nodes. */
export function makeNodes(): Node[] {
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
      options: [],
      values: [],
    })),
    ...shown.map((command) => ({
      name: command.name,
      summary: command.summary,
      verbs: [],
      options: optionsOf(command),
      values: valuesOf(Object.values(command.arguments)),
    })),
  ];
}

function optionsOf(command: Command): Word[] {
  const help = {
    flags: ['--help', '-h'],
    help: 'Explain the command',
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
