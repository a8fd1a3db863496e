import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Action } from '@cde/api/actions.ts';
import { expect, test } from 'vitest';
import { flagOf } from '../command/command.ts';
import { commands } from '../program/commands.ts';
import { actionLine, adviceLines } from './actions.ts';

const values = { workspace: 'ada/web', port: 8080, template: 'go', cluster: 'eu', satellite: 'tokyo' };
const samples = Action.options.map((option) => Action.parse({ ...values, kind: option.shape.kind.value }));

test.each(samples)('$kind is worded as a command that exists', (action) => {
  const line = actionLine(action)!;
  const [, words = ''] = / cde (.+)$/.exec(line) ?? [];
  const found = commands
    .filter(({ name }) => `${words} `.startsWith(`${name} `))
    .sort((one, other) => other.name.length - one.name.length)[0];
  expect(found, line).toBeDefined();
  const rest = words.slice(found!.name.length).split(' ').filter(Boolean);
  const flags = rest.filter((word) => word.startsWith('--'));
  const known = Object.entries(found!.options).map(([key, option]) => flagOf(key, option));
  expect(known).toEqual(expect.arrayContaining(flags));
  const given = rest.length - flags.length;
  const declared = Object.values(found!.arguments);
  expect(given).toBeGreaterThanOrEqual(declared.filter(({ optional }) => !optional).length);
  expect(given).toBeLessThanOrEqual(declared.length);
});

test('what to do is the hint, then a command for each action; unknown kinds are skipped', () => {
  const unknown = { kind: 'paint-workspace', workspace: 'ada/web' } as unknown as Action;
  const inherited = { kind: 'toString' } as unknown as Action;
  expect(
    adviceLines({
      hint: 'Wait for it.\nOr cancel it.',
      actions: [unknown, inherited, { kind: 'cancel-build', workspace: 'ada/web' }],
    }),
  ).toEqual(['Wait for it.', 'Or cancel it.', 'Cancel the build: cde cancel ada/web']);
});

test('hints of the server and the satellites name no command, as browsers show them too', () => {
  const root = join(import.meta.dirname, '../..');
  const sources = ['server', 'satellite'].flatMap((part) =>
    readdirSync(join(root, part), { recursive: true, encoding: 'utf8' })
      .filter((file) => /\.ts$/.test(file) && !/\.test\.ts$|node_modules|dist/.test(file))
      .map((file) => join(root, part, file)),
  );
  expect(sources.length).toBeGreaterThan(100);
  const names = [...new Set(commands.map(({ name }) => name.split(' ')[0]))].join('|');
  const command = new RegExp(`\\bhint: [^\\n]*\\bcde (?:${names})\\b`);
  expect(sources.filter((file) => command.test(readFileSync(file, 'utf8')))).toEqual([]);
});
