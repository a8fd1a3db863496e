import { readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { freshBundle } from '@cde/agent/bundle.ts';
import { expect, test } from 'vitest';

const root = dirname(import.meta.dirname);
const dockerfile = readFileSync(join(root, 'docker/Dockerfile'), 'utf8');

/** The folders that a stage copies from the sources. */
function copiedIn(stage: string): string[] {
  const [, lines = ''] = dockerfile.split(new RegExp(`^FROM .* AS ${stage}$`, 'm'));
  const [own = ''] = lines.split(/^FROM /m);
  return [...own.matchAll(/^COPY (?!--from)(\S+) \1$/gm)].map((match) => match[1]!);
}

// The images are built only in the suites that need a cluster.
test('the image that builds the agent has all of its sources', async () => {
  const folder = join(root, 'agent');
  const bundle = dirname(await freshBundle());
  const inputs = JSON.parse(readFileSync(join(bundle, 'inputs.json'), 'utf8')) as string[];
  const sources = inputs
    .map((input) => relative(root, join(folder, input)))
    .filter((path) => !path.includes('node_modules/'));
  expect(sources).toContain('agent/main.ts');
  const copied = copiedIn('build');
  const missing = sources.filter((path) => !copied.some((part) => path.startsWith(`${part}/`)));
  expect(missing).toEqual([]);
});
