import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { type Command, flagOf, type Option } from './command/command.ts';
import { commands } from './program/commands.ts';

/** The page whose middle is generated from the commands. */
export const page = fileURLToPath(new URL('../docs/cli.md', import.meta.url));

/** docs/cli.md with an up-to-date reference. */
export function withReference(text: string): string {
  const groups = new Map<string, Command[]>();
  for (const command of commands)
    if (!command.hidden) groups.set(command.group, [...(groups.get(command.group) ?? []), command]);
  const made = [...groups].map(
    ([group, members]) => `## ${group.replace(':', '')}\n\n${members.map(section).join('\n')}`,
  );
  return text.replace(
    /(<!-- made by node cli\/reference.ts -->\n)[\s\S]*(<!-- end -->)/,
    (_, start: string, end: string) => `${start}\n${made.join('\n')}\n${end}`,
  );
}

function section(command: Command): string {
  const words = Object.entries(command.arguments).map(([key, { many, optional }]) => {
    const name = `${key.toUpperCase()}${many ? '…' : ''}`;
    return optional ? `[${name}]` : name;
  });
  const tail = command.raw ? ['[FLAGS]'] : Object.keys(command.options).length > 0 ? ['[OPTIONS]'] : [];
  const lines = [
    `### cde ${command.name}`,
    '',
    '```',
    ['cde', command.name, ...words, ...tail].join(' '),
    '```',
    '',
    `${command.summary}.${command.details ? ` ${command.details}` : ''}`,
    ...(command.aliases
      ? ['', `Also: ${command.aliases.map((alias) => `\`cde ${alias}\``).join(', ')}`]
      : []),
    '',
  ];
  const rows = [
    ...Object.entries(command.arguments).map(
      ([key, { help }]) => [`\`${key.toUpperCase()}\``, help] as const,
    ),
    ...Object.entries(command.options).map(
      ([key, option]) => [optionText(key, option), option.help] as const,
    ),
  ];
  if (rows.length > 0) {
    lines.push('| | |', '|---|---|');
    for (const [name, help] of rows) lines.push(`| ${name} | ${help.replaceAll('|', '\\|')} |`);
    lines.push('');
  }
  lines.push('```');
  const longest = Math.max(...command.examples.map(([line]) => line.length));
  for (const [line, what] of command.examples) lines.push(`${line.padEnd(longest)}   # ${what}`);
  lines.push('```', '');
  return lines.join('\n');
}

function optionText(key: string, option: Option): string {
  const name = option.value ?? key.toUpperCase();
  const value =
    option.kind === 'maybe' ? ` [${name}]` : ['flag', 'no'].includes(option.kind) ? '' : ` ${name}`;
  const short = option.short ? `\`-${option.short}\`, ` : '';
  return `${short}\`${flagOf(key, option)}${value}\``;
}

// Run by hand after commands have changed; a test checks that.
if (process.argv[1] === fileURLToPath(import.meta.url))
  writeFileSync(page, withReference(readFileSync(page, 'utf8')));
