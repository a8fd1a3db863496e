import { expect, test } from 'vitest';
import type { ListedName, Side, Status } from './side.ts';
import { expand, isPlainName, type Step, walk } from './tree-walk.ts';

const status = (kind: Status['kind']): Status => ({ kind, size: 1, mode: 0o644, modified: 0, accessed: 0 });

const named = (names: string[]): ListedName[] => names.map((text) => ({ text, shown: text }));

/** A side with a fixed tree, and only the methods that these tests use. */
function sideOf(folders: Record<string, string[]>, real: (path: string) => string = (path) => path): Side {
  return {
    label: (path: string) => `web:${path}`,
    status: async (path: string) => status(path in folders ? 'folder' : 'file'),
    real: async (path: string) => real(path),
    list: async (path: string) => named(folders[path] ?? []),
  } as unknown as Side;
}

async function stepsOf(side: Side): Promise<string[]> {
  const steps: string[] = [];
  for await (const step of walk({ side, path: 'src' }, status('folder'), { side, path: '/home/ada/dst' })) {
    const said: Step = step;
    steps.push(said.do === 'fail' ? `fail ${said.error.code}` : `${said.do} ${said.to.path}`);
  }
  return steps;
}

test('names that a hostile workspace makes up never leave the folder', async () => {
  const names = ['..', '.', '', '../x', '/etc/passwd', 'a/b', 'nul\0', 'good', '...'];
  expect(await stepsOf(sideOf({ src: names }))).toEqual([
    'folder /home/ada/dst',
    ...Array(3).fill('fail file-name-refused'),
    'file /home/ada/dst/...',
    ...Array(3).fill('fail file-name-refused'),
    'file /home/ada/dst/good',
    'fail file-name-refused',
    'leave /home/ada/dst',
  ]);
  expect(['-rf', '~', 'a b', 'ü\n'].every(isPlainName)).toBe(true);
});

test('endlessly nested folders stop at a maximum depth', async () => {
  const endless = {
    label: (path: string) => path,
    status: async () => status('folder'),
    real: async (path: string) => path,
    list: async () => named(['in']),
  } as unknown as Side;
  const steps = await stepsOf(endless);
  expect(steps.length).toBeLessThan(1_000);
  expect(steps.filter((step) => step === 'fail file-loop')).toHaveLength(1);
});

test('patterns match names, not paths, and hidden ones only if they begin with a dot', async () => {
  const side = {
    ...sideOf({}),
    status: async () => null,
    list: async (path: string) =>
      named(path === 'd' ? ['b.log', 'a.log', '.c.log', '../x.log', 'other'] : []),
  } as unknown as Side;
  expect(await expand(side, 'd/*.log')).toEqual(['d/a.log', 'd/b.log']);
  expect(await expand(side, 'd/.*.log')).toEqual(['d/.c.log']);
  expect(await expand(side, 'e/*')).toEqual([]);
  expect(await expand(side, 'plain')).toEqual(['plain']);
});
