import { CommanderError, Command as Program, Option as ProgramOption } from 'commander';
import type { Command, Handler, Option } from '../command/command.ts';
import { flagOf, oppositeOf } from '../command/command.ts';
import { commonOptions } from '../command/common-options.ts';
import { exitCodes } from '../failure/exit-codes.ts';
import { type Failure, toFailure, usage } from '../failure/failure.ts';
import { makeOutput } from '../output/output.ts';
import { fromSshHost } from '../workspaces/reference.ts';
import { endOptions, findCommand, type GlobalOptions, takeGlobalOptions } from './command-line.ts';
import { toCommandLineTerms } from './command-terms.ts';
import { commands, nouns } from './commands.ts';
import { run } from './run.ts';

/** Parses a command line and runs its command; resolves to the exit code. */
export async function parseAndRun(given: string[]): Promise<number> {
  let words = given;
  let json = given.includes('--json');
  try {
    const { globals, rest } = takeGlobalOptions(given);
    const found = findCommand(commands, rest);
    const after = found ? endOptions(found.command, rest.slice(found.length)) : [];
    words = found ? [...found.command.name.split(' '), ...after] : rest;
    const own = words.slice(0, words.includes('--') ? words.indexOf('--') : undefined);
    json = globals.json || own.includes('--json');
    return await parseWords(words, { ...globals, json }, found?.command);
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode === 0) return exitCodes.success;
    const out = makeOutput(process.env, json);
    const failure = error instanceof CommanderError ? usageOf(error, words) : toFailure(error);
    out.fail(failure);
    return failure.exitCode;
  }
}

async function parseWords(words: string[], globals: GlobalOptions, found: Command | undefined) {
  let chosen: (() => Promise<number>) | undefined;
  const program = makeProgram((command, input, options) => {
    chosen = () =>
      run({ ...chooseServer(globals, options), json: globals.json || options.json }, async (context) => {
        const handler = (await command.load()) as unknown as Handler<Record<string, unknown>>;
        try {
          return await handler(context, input, { commands, nouns });
        } catch (error) {
          if (context.signal.aborted || context.out.json) throw error;
          throw toCommandLineTerms(command, toFailure(error));
        }
      });
  });
  if (found?.raw) {
    // The rest belongs to another program, so its flags are not validated.
    const rest = words.slice(found.name.split(' ').length);
    if (!rest.includes('--help') && rest[0] !== '-h')
      return run(globals, async (context) =>
        ((await found.load()) as Handler<unknown>)(context, { words: rest }, { commands, nouns }),
      );
  }
  if (words.length === 0) {
    program.outputHelp();
    return exitCodes.success;
  }
  await program.parseAsync(words, { from: 'user' });
  return chosen ? chosen() : exitCodes.success;
}

type Chosen = (command: Command, input: Record<string, unknown>, options: ChosenOptions) => void;

/** `hostServer`: the server that an SSH host name among the arguments belongs to. */
interface ChosenOptions {
  json: boolean;
  server?: string;
  hostServer?: string;
}

function chooseServer(globals: GlobalOptions, options: ChosenOptions): { server?: string } {
  const named = options.server ?? globals.server;
  const { hostServer } = options;
  if (hostServer !== undefined && named !== undefined && named !== hostServer)
    throw usage(
      `The host name is of the server ${hostServer}, and --server is ${named}.`,
      'Leave --server out.',
    );
  const server = hostServer ?? named;
  return server === undefined ? {} : { server };
}

/** Builds commander's tree of all commands. `chosen` is called with the one that a command line names. */
export function makeProgram(chosen: Chosen): Program {
  const program = configure(new Program('cde'))
    .helpCommand('help [command]', 'Show help for a command')
    .description('Create, manage and connect to cloud development environments.')
    .option('-V, --version', 'Print the version')
    .addHelpText(
      'after',
      '\nExamples:\n  $ cde login https://cde.example.com\n  $ cde create web --template local\n  $ cde ssh web\n\n' +
        'Global options, before or after the command: --server SERVER, --json.\n' +
        'Use `cde COMMAND --help` for more about a command. Exit codes and settings: docs/cli.md',
    );
  const parents = new Map<string, Program>();
  for (const command of commands) {
    const [first, second] = command.name.split(' ') as [string, string?];
    if (second === undefined) {
      const added = addCommand(program, command, first, chosen);
      // A command that also has verbs.
      if (first in nouns) parents.set(first, added);
      continue;
    }
    const noun = parents.get(first) ?? addNoun(program, first);
    parents.set(first, noun);
    addCommand(noun, command, second, chosen);
  }
  for (const [noun, parent] of parents)
    parent.addHelpText('after', `\nUse \`cde ${noun} COMMAND --help\` for more about a command.`);
  return program;
}

function configure(program: Program): Program {
  return program
    .exitOverride()
    .showHelpAfterError(false)
    .showSuggestionAfterError(true)
    .helpCommand(false)
    .helpOption('-h, --help', 'Show help for the command')
    .configureHelp({ sortSubcommands: false, helpWidth: Math.min(process.stdout.columns ?? 100, 110) })
    .configureOutput({ writeErr: () => {}, outputError: () => {} });
}

function addNoun(program: Program, name: string): Program {
  const { summary, group } = nouns[name]!;
  return configure(program.command(name)).description(summary).helpGroup(group);
}

function addCommand(parent: Program, command: Command, name: string, chosen: Chosen): Program {
  const program = configure(parent.command(name, { hidden: command.hidden === true }))
    .description(command.details ? `${command.summary}.\n\n${command.details}` : `${command.summary}.`)
    .summary(command.summary)
    .aliases((command.aliases ?? []).map((alias) => alias.split(' ').at(-1)!))
    .helpGroup(command.group);
  for (const [key, argument] of Object.entries(command.arguments)) {
    const many = argument.many ? '...' : '';
    program.argument(argument.optional ? `[${key}${many}]` : `<${key}${many}>`, argument.help);
  }
  const options = { ...command.options, ...commonOptions };
  for (const [key, option] of Object.entries(options)) program.addOption(makeOption(key, option));
  // The option's former name, which kubeconfigs and scripts contain.
  program.addOption(new ProgramOption('--url <URL>').hideHelp());
  if (command.examples.length > 0)
    program.addHelpText(
      'after',
      `\nExamples:\n${command.examples.map(([line, what]) => `  $ ${line}\n      ${what}`).join('\n')}`,
    );
  program.action((...given: unknown[]) => {
    const values = given.at(-2) as Record<string, unknown>;
    const input: Record<string, unknown> = {};
    Object.keys(command.arguments).forEach((key, at) => {
      input[key] = given[at];
    });
    for (const [key, option] of Object.entries(command.options))
      input[key] = optionValue(key, option, values);
    const server = (values.server ?? values.url) as string | undefined;
    const hostServer = resolveHosts(command, input);
    chosen(command, input, {
      json: values.json === true,
      ...(server !== undefined && { server }),
      ...(hostServer !== undefined && { hostServer }),
    });
  });
  return program;
}

/** Replaces SSH host names (`web.cde`, `web.work.cde`) by workspaces. Returns the server that they name, if any. */
function resolveHosts(command: Command, input: Record<string, unknown>): string | undefined {
  const servers = new Set<string>();
  for (const [key, { completes }] of Object.entries(command.arguments)) {
    const isOperand = completes === 'operands';
    if (!isOperand && completes !== 'workspaces' && completes !== 'connectable') continue;
    const resolve = (text: string): string => {
      const end = isOperand ? text.indexOf(':') : text.length;
      if (end < 0 || !/^[a-z0-9-]+(\.[a-z0-9-]+)*\.cde$/i.test(text.slice(0, end))) return text;
      const { reference, alias } = fromSshHost(text.slice(0, end));
      if (alias !== undefined) servers.add(alias);
      return reference + text.slice(end);
    };
    const given = input[key];
    if (typeof given === 'string') input[key] = resolve(given);
    else if (Array.isArray(given)) input[key] = given.map((each) => resolve(each as string));
  }
  if (servers.size > 1)
    throw usage(
      `These workspaces are on several servers: ${[...servers].join(', ')}.`,
      'Run one command for each server.',
    );
  return [...servers][0];
}

function makeOption(key: string, option: Option): ProgramOption {
  const name = option.value ?? key.toUpperCase();
  const value = {
    flag: '',
    no: '',
    text: ` <${name}>`,
    number: ` <${name}>`,
    list: ` <${name}>`,
    maybe: ` [${name}]`,
  };
  const made = new ProgramOption(
    `${option.short ? `-${option.short}, ` : ''}${flagOf(key, option)}${value[option.kind]}`,
    option.help,
  );
  if (option.choices) made.choices(option.choices);
  if (option.required) made.makeOptionMandatory();
  if (option.kind === 'list')
    made.argParser((one: string, before: string[] | undefined) => [...(before ?? []), one]);
  if (option.kind === 'number')
    made.argParser((text: string) => {
      if (!/^\d+$/.test(text))
        throw usage(`${flagOf(key, option)} takes a whole number, not ${JSON.stringify(text)}.`);
      return Number(text);
    });
  return made;
}

function optionValue(key: string, option: Option, values: Record<string, unknown>): unknown {
  const opposite = oppositeOf(key);
  const value = values[key];
  switch (option.kind) {
    case 'flag':
      return opposite === undefined ? value === true : values[opposite] === false;
    case 'text':
      // False: `--no-X` was given.
      return value === false ? undefined : value;
    case 'no':
      return value !== false;
    case 'list':
      return value ?? [];
    default:
      return value;
  }
}

/** Converts commander's error. */
function usageOf(error: CommanderError, words: string[]): Failure {
  const [message, ...suggestion] = error.message.replace(/^error: /, '').split('\n');
  const named = commands.find(({ name }) => `${words.join(' ')} `.startsWith(`${name} `))?.name;
  const noun = words.find((word) => !word.startsWith('-'));
  const help = `See: cde ${named ?? (noun && noun in nouns ? noun : '')}`.trimEnd();
  if (error.code === 'commander.help')
    return usage(noun ? `cde ${noun} needs to know what to do.` : 'A command is missing.', `${help} --help`);
  const text = message!.charAt(0).toUpperCase() + message!.slice(1).replace(/\.?$/, '.');
  const advice = suggestion.map((line) => line.replace(/^\((.*)\)$/, '$1'));
  return usage(text, [...advice, `${help} --help`].join('\n'));
}
