import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const here = dirname(fileURLToPath(import.meta.url));

test('docs/errors.md lists every code with which a workspace on Kubernetes can fail', () => {
  const files = readdirSync(here, { recursive: true, encoding: 'utf8' }).filter(
    (file) => file.endsWith('.ts') && !/test(\.ts|ing)/.test(file),
  );
  const texts = files.map((file) => readFileSync(join(here, file), 'utf8'));
  const codes = texts.flatMap((text) => [
    ...[...text.matchAll(/\bcode:[^,\n]*/g)].flatMap(([line]) => [
      ...line.matchAll(/'([a-z]+(?:-[a-z]+)+)'/g),
    ]),
    ...text.matchAll(/(?:fail|failed)\(\s*'([a-z]+(?:-[a-z]+)+)'/g),
  ]);
  const found = new Set(codes.map((match) => match[1]!));
  expect(found.size).toBeGreaterThan(50);
  const page = readFileSync(join(here, '../../../docs/errors.md'), 'utf8');
  expect([...found].filter((code) => !page.includes(`\`${code}\``))).toEqual([]);
});
