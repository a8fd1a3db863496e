import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { expect, test } from 'vitest';
import { flagOf } from './command/command.ts';
import { commands } from './program/commands.ts';
import { page, withReference } from './reference.ts';

const text = readFileSync(page, 'utf8');

test('docs/cli.md matches the commands (to update it, run: node cli/reference.ts)', () => {
  expect(withReference(text)).toBe(text);
});

test('a field of a request is named after an option that its command has', () => {
  const named = commands.flatMap((command) =>
    Object.values(command.fields ?? {})
      .flatMap((name) => name.match(/--[a-z-]+/g) ?? [])
      .map((flag) => ({ command, flag })),
  );
  expect(named.length).toBeGreaterThan(5);
  for (const { command, flag } of named) {
    const flags = Object.entries(command.options).map(([key, option]) => flagOf(key, option));
    expect(flags, command.name).toContain(flag);
  }
});

test('docs/cli.md explains every error code of the CLI', () => {
  const folder = join(dirname(dirname(page)), 'cli');
  const sources = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter(
    (file) => file.endsWith('.ts') && !file.includes('.test.') && !file.includes('testing'),
  );
  const used = new Set(
    sources.flatMap((file) =>
      [...readFileSync(join(folder, file), 'utf8').matchAll(/new Failure\(\s*'([a-z-]+)'/g)].map(
        (match) => match[1]!,
      ),
    ),
  );
  expect(used.size).toBeGreaterThan(10);
  const explained = new Set([...text.matchAll(/^\| `([a-z-]+)` \|/gm)].map((match) => match[1]!));
  expect([...used].filter((code) => !explained.has(code))).toEqual([]);
});
