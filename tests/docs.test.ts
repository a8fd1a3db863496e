import { execFileSync } from 'node:child_process';
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

test("docs/errors.md lists exactly the API's codes with their statuses", () => {
  const rows = [...section(errors, 'Errors of the API').matchAll(/^\| `([a-z-]+)` \| (\d+) \|/gm)].map(
    (row) => [row[1], Number(row[2])],
  );
  expect(Object.fromEntries(rows)).toEqual(catalogue);
  expect(rows).toHaveLength(Object.keys(catalogue).length);
});

test('docs/errors.md lists the errors of sessions', () => {
  expect(codes(section(errors, 'Errors of a session')).sort()).toEqual(Object.keys(tunnelErrors).sort());
});

test('docs/configuration.md names every setting', () => {
  const page = readFileSync(join(root, 'docs/configuration.md'), 'utf8');
  const flags = [...describeSettings().matchAll(/^ +(--[a-z0-9-]+)/gm)].map((match) => match[1]!);
  expect(flags.length).toBeGreaterThan(10);
  expect(flags.filter((flag) => !page.includes(`\`${flag}\``))).toEqual([]);
});

test('no file refers to one that is not in the repository', () => {
  const files = execFileSync('git', ['ls-files'], { cwd: root, encoding: 'utf8' })
    .split('\n')
    .filter(Boolean);
  const known = new Set(files);
  const parts = new Set(files.map((file) => file.split('/')[0]!));
  const missing: string[] = [];
  for (const file of files.filter((name) => /\.(tsx?|mjs|md|sql|ya?ml|sh)$|^\.ci\/run$/.test(name))) {
    const text = readFileSync(join(root, file), 'utf8');
    for (const [, path] of text.matchAll(
      /(?<![\w/.@-])((?:[\w.-]+\/)+[\w.-]+\.(?:tsx?|md|mjs|sql|yaml))\b/g,
    )) {
      // `NAME.ts` stands for any file; a link is relative to its page.
      if (!parts.has(path!.split('/')[0]!) || /\bNAME\b/.test(path!)) continue;
      if (!known.has(path!) && !known.has(join(dirname(file), path!))) missing.push(`${file}: ${path}`);
    }
  }
  expect(missing).toEqual([]);
});
