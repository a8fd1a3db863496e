import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { catalogue } from '@cde/api/problem.ts';
import { describeSettings } from '@cde/server/config.ts';
import { tunnelErrors } from '@cde/tunnel/errors.ts';
import { expect, test } from 'vitest';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const section = (text: string, title: string) =>
  text.split(/^## /m).find((part) => part.startsWith(title)) ?? '';
const codes = (text: string) => [...text.matchAll(/^\| `([a-z-]+)`/gm)].map((match) => match[1]!);

const errors = readFileSync(join(root, 'docs/errors.md'), 'utf8');

test("docs/errors.md lists exactly the server's codes with their statuses", () => {
  const rows = [...section(errors, "The server's").matchAll(/^\| `([a-z-]+)` \| (\d+) \|/gm)].map((row) => [
    row[1],
    Number(row[2]),
  ]);
  expect(Object.fromEntries(rows)).toEqual(catalogue);
  expect(rows).toHaveLength(Object.keys(catalogue).length);
});

test('docs/errors.md lists what ends a session', () => {
  expect(codes(section(errors, 'Of a session')).sort()).toEqual(Object.keys(tunnelErrors).sort());
});

test('docs/configuration.md names every setting', () => {
  const page = readFileSync(join(root, 'docs/configuration.md'), 'utf8');
  const flags = [...describeSettings().matchAll(/^ +(--[a-z-]+)/gm)].map((match) => match[1]!);
  expect(flags.length).toBeGreaterThan(10);
  expect(flags.filter((flag) => !page.includes(`\`${flag}\``))).toEqual([]);
});
