import type { Context } from './context.ts';
import type { Result } from './result.ts';

/** The kind of completion for a value. */
export type Completes =
  | 'workspaces'
  /** Workspaces that this user may open a session to. */
  | 'connectable'
  | 'clusters'
  | 'nodes'
  | 'templates'
  | 'users'
  | 'files'
  /** A local file, or `WORKSPACE:PATH`. */
  | 'operands'
  | readonly string[];

export interface Argument {
  help: string;
  /** One or more. */
  many?: true;
  optional?: true;
  completes?: Completes;
}

export interface Option {
  /**
   * `flag`: false unless given, and with a key such as `noStart` the opposite of the option `start`; `no`: written `--no-NAME`, true unless given; `text`, `number`: undefined
   * unless given; `list`: may be repeated; `maybe`: a flag that may carry a value.
   */
  kind: 'flag' | 'no' | 'text' | 'number' | 'list' | 'maybe';
  help: string;
  /** One letter. */
  short?: string;
  /** The value's name in help. */
  value?: string;
  required?: true;
  choices?: readonly string[];
  completes?: Completes;
}

type ArgumentValue<A extends Argument> = A extends { many: true }
  ? string[]
  : A extends { optional: true }
    ? string | undefined
    : string;
type OptionValue<O extends Option> = O['kind'] extends 'flag' | 'no'
  ? boolean
  : O['kind'] extends 'list'
    ? string[]
    : O['kind'] extends 'maybe'
      ? string | true | undefined
      : O['kind'] extends 'number'
        ? number | undefined
        : O extends { required: true }
          ? string
          : string | undefined;

export type Input<A extends Record<string, Argument>, O extends Record<string, Option>> = {
  [K in keyof A]: ArgumentValue<A[K]>;
} & { [K in keyof O]: OptionValue<O[K]> };

/** All commands, and the nouns that have verbs of their own. */
export interface Tree {
  commands: readonly Command[];
  nouns: Record<string, { summary: string; group: string }>;
}

/**
 * Runs a command. A Result is rendered, a number is the exit code, nothing is 0. `tree` is for the commands that are about the others:
 * they cannot import it, since it leads to them.
 */
export type Handler<I> = (context: Context, input: I, tree: Tree) => Promise<Result | number | undefined>;

/** Describes a command for parsing, help and completion; its code is loaded when it runs. */
export interface Command {
  /** Noun and verb, or one word: `template push`, `list`. */
  name: string;
  group: string;
  summary: string;
  /** Shown in help below the summary. */
  details?: string;
  arguments: Record<string, Argument>;
  options: Record<string, Option>;
  /** What sets a field of the request, if its name is another: `schedule.start` is set by `--daily-start`. */
  fields?: Readonly<Record<string, string>>;
  /** A command line and its description. */
  examples: readonly (readonly [string, string])[];
  hidden?: true;
  /** Other names: `ls` of `list`. */
  aliases?: readonly string[];
  /**
   * The last argument is another program's command line: from its first word on, no options are parsed, as with ssh.
   */
  endsOptions?: true;
  /** Passes all words after the name to the handler unparsed, as `words`. */
  raw?: true;
  /** The kind of completion for the words of a raw command. */
  rawCompletes?: Completes;
  load: () => Promise<Handler<never>>;
}

/** Declares a command. The type of its handler's input is derived from its arguments and options. */
export function command<
  const A extends Record<string, Argument> = Record<never, never>,
  const O extends Record<string, Option> = Record<never, never>,
>(
  definition: Omit<Command, 'arguments' | 'options' | 'load'> & {
    arguments?: A;
    options?: O;
    load: () => Promise<Handler<Input<A, O>>>;
  },
): Command {
  return { arguments: {}, options: {}, ...definition } as unknown as Command;
}

/** Declares a command whose words are another program's, which its handler gets unparsed. */
export function rawCommand(
  definition: Omit<Command, 'arguments' | 'options' | 'load' | 'raw'> & {
    load: () => Promise<Handler<{ words: string[] }>>;
  },
): Command {
  return { arguments: {}, options: {}, raw: true, ...definition } as unknown as Command;
}

/** The option that `noStart` is the opposite of: `start`. Undefined for other keys. */
export function oppositeOf(key: string): string | undefined {
  return /^no[A-Z]/.test(key) ? key.charAt(2).toLowerCase() + key.slice(3) : undefined;
}

/** `--no-wait` of `wait`: an option's name on the command line. */
export function flagOf(key: string, option: Option): string {
  const kebab = key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
  return option.kind === 'no' ? `--no-${kebab}` : `--${kebab}`;
}
