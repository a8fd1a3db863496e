import { createHash } from 'node:crypto';
import {
  chmod,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  stat,
  symlink,
  truncate,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { findRoot, makeDiskTree } from './disk.ts';
import { type Entry, type FileEntry, isSafeLink, isSafePath } from './entries.ts';
import { makeIgnored, type Rules } from './rules.ts';
import type { Sink, Tree } from './tree.ts';

const rules = { lines: [], git: false };
let folder: string;
let root: string;
let tree: ReturnType<typeof makeDiskTree>;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cde-files-'));
  root = await findRoot(join(folder, 'root'), true);
  tree = makeDiskTree(root);
});
afterEach(async () => {
  tree.close();
  await rm(folder, { recursive: true, force: true });
});

const at = (path: string) => join(root, path);
const fileOf = (content: string, executable = false): FileEntry => ({
  kind: 'file',
  hash: createHash('sha256').update(content).digest('base64url'),
  size: Buffer.byteLength(content),
  executable,
});
const content =
  (text: string, mode = 0o644) =>
  async (sink: Sink) => {
    await sink.begin(mode);
    await sink.data(Buffer.from(text));
  };
const write = (path: string, text: string, expected: Entry | null = null, on: Tree = tree) =>
  on.write(path, fileOf(text), expected, content(text));
const plain = async () => Object.fromEntries((await tree.scan(rules)).entries);
const code = (expected: string) => expect.objectContaining({ code: expected });

describe('names from elsewhere', () => {
  it.each([
    '',
    '.',
    '..',
    '/etc',
    '../x',
    'a/../b',
    'a//b',
    'a/',
    'a/./b',
    'a\0b',
    `a/${'x'.repeat(256)}`,
  ])('no path below the root: %j', (path) => expect(isSafePath(path)).toBe(false));
  it('rejects our own temporary files, names that are not text, and paths that are too deep', () => {
    for (const path of ['a/.cde-sync-0123456789abcdef.tmp', 7, null, undefined, 'a/'.repeat(300)])
      expect(isSafePath(path)).toBe(false);
    for (const path of ['a', 'a/b', '...', 'ü/😀', '-rf', 'a b\n', '~']) expect(isSafePath(path)).toBe(true);
  });
  it.each([
    ['a', 'b', true],
    ['a', './b/c', true],
    ['a', '..', false],
    ['d/a', '../b', true],
    ['d/a', '../../b', false],
    ['d/a', '..', true],
    ['a', '/etc/passwd', false],
    ['a', 'b/../../x', false],
    // b could be a link that leads upwards.
    ['d/a', 'b/../x', false],
    ['a', '', false],
    ['a', 'b\0', false],
  ])('a link %s → %s: %s', (path, target, safe) => expect(isSafeLink(path, target)).toBe(safe));

  it('.git is never synced, in any spelling and with any rules', () => {
    const ignored = makeIgnored({ lines: ['!.git', '!.git/**', 'dist/', '!dist/keep'], git: false });
    for (const path of ['.git', 'a/.GIT/hooks/x', '.gi\u200ct/config', 'GIT~1'])
      expect(ignored(path, false)).toBe(true);
    expect(ignored('.gitignore', false)).toBe(false);
    expect([ignored('dist', false), ignored('dist', true)]).toEqual([false, true]);
    expect(makeIgnored({ lines: [], git: true })('.git/config', false)).toBe(false);
  });
});

describe('a scan', () => {
  it('lists files, folders and links, and what is excluded by name, kind or rule', async () => {
    await mkdir(at('d/node_modules'), { recursive: true });
    await writeFile(at('d/f'), 'f');
    await writeFile(at('run'), '#!');
    await chmod(at('run'), 0o755);
    await symlink('d/f', at('link'));
    await symlink('/etc/passwd', at('out'));
    await symlink('..', at('up'));
    await writeFile(Buffer.concat([Buffer.from(`${root}/`), Buffer.from([0x61, 0xff])]), 'not UTF-8');
    await writeFile(at('.cde-sync-0123456789abcdef.tmp'), 'a half');
    await writeFile(at('.cde-sync-fedcba9876543210.tmp'), 'an old half');
    await utimes(at('.cde-sync-fedcba9876543210.tmp'), 1, 1);
    const scan = await tree.scan({ lines: ['node_modules'], git: false });
    expect(Object.fromEntries(scan.entries)).toEqual({
      d: { kind: 'folder', mode: 0o777 & ~process.umask() },
      'd/f': fileOf('f'),
      link: { kind: 'link', target: 'd/f' },
      run: fileOf('#!', true),
    });
    expect(scan.skipped.map(({ path, why }) => `${path} ${why}`).sort()).toEqual([
      'a\\xFF name',
      'out link-leaves',
      'up link-leaves',
    ]);
    expect((await readdir(root)).filter((name) => name.endsWith('.tmp'))).toHaveLength(1);
  });

  it('detects a change that preserves size and time', async () => {
    await writeFile(at('f'), 'one');
    const { mtime } = await stat(at('f'));
    expect(await plain()).toEqual({ f: fileOf('one') });
    await writeFile(at('f'), 'two');
    await utimes(at('f'), mtime, mtime);
    expect(await plain()).toEqual({ f: fileOf('two') });
  });

  it('rejects if the root is missing instead of returning nothing', async () => {
    await rm(root, { recursive: true });
    await expect(tree.scan(rules)).rejects.toEqual(code('root-missing'));
    await expect(findRoot(root, false)).rejects.toEqual(code('root-missing'));
    await writeFile(root, '');
    await expect(findRoot(root, false)).rejects.toEqual(code('root-not-folder'));
  });
});

describe('a change', () => {
  it('writes complete files, with the permissions of the source or of the replaced file', async () => {
    await write('f', 'one');
    await tree.write('private', fileOf('p'), null, content('p', 0o600));
    await tree.write('run', fileOf('r', true), null, content('r', 0o640));
    // The source's permissions less the umask: nothing is added, and setuid bits are not copied.
    for (const mode of [0o444, 0o600, 0o644, 0o750, 0o755, 0o777, 0o4755]) {
      const name = mode.toString(8);
      await tree.write(name, fileOf('m', (mode & 0o100) !== 0), null, content('m', mode));
      expect((await stat(at(name))).mode & 0o7777).toBe(mode & 0o777 & ~process.umask());
      await tree.remove(name, fileOf('m', (mode & 0o100) !== 0));
    }
    await tree.makeFolder('d700', 0o4700);
    await tree.makeFolder('d555', 0o555);
    expect((await stat(at('d700'))).mode & 0o7777).toBe(0o700);
    expect((await stat(at('d555'))).mode & 0o7777).toBe(0o755);
    await tree.remove('d700', { kind: 'folder' });
    await tree.remove('d555', { kind: 'folder' });
    expect((await stat(at('private'))).mode & 0o777).toBe(0o600);
    expect((await stat(at('run'))).mode & 0o700).toBe(0o700);
    await chmod(at('f'), 0o640);
    await tree.scan(rules);
    await write('f', 'two', fileOf('one'));
    expect(await readFile(at('f'), 'utf8')).toBe('two');
    expect((await stat(at('f'))).mode & 0o777).toBe(0o640);
    await tree.setExecutable('f', true, fileOf('two'));
    expect((await stat(at('f'))).mode & 0o777).toBe(0o750);
    expect((await readdir(root)).sort()).toEqual(['f', 'private', 'run']);
  });

  it('preserves the holes of a sparse file', async () => {
    const size = 64 * 1024 * 1024;
    await writeFile(at('sparse'), 'start');
    await truncate(at('sparse'), size);
    const entry = (await tree.scan(rules)).entries.get('sparse') as FileEntry;
    await tree.write('copy', entry, null, (sink) => tree.read('sparse', entry, sink));
    const copy = await stat(at('copy'));
    expect(copy.size).toBe(size);
    expect(copy.blocks * 512).toBeLessThan(1024 * 1024);
  });

  it('is rejected if the target is not as expected', async () => {
    await writeFile(at('f'), 'one');
    await tree.scan(rules);
    await writeFile(at('f'), 'newer');
    await expect(write('f', 'two', fileOf('one'))).rejects.toEqual(code('changed'));
    await expect(write('f', 'two')).rejects.toEqual(code('changed'));
    await expect(tree.remove('f', fileOf('one'))).rejects.toEqual(code('changed'));
    await expect(tree.rename('f', 'g', fileOf('one'))).rejects.toEqual(code('changed'));
    await expect(tree.setExecutable('f', true, fileOf('one'))).rejects.toEqual(code('changed'));
    await expect(tree.makeLink('f', { kind: 'link', target: 'x' }, null)).rejects.toEqual(code('changed'));
    await expect(tree.makeFolder('f')).rejects.toEqual(code('changed'));
    await expect(write('gone', 'x', fileOf('x'))).rejects.toEqual(code('changed'));
    await writeFile(at('taken'), '');
    await expect(tree.rename('f', 'taken', fileOf('newer'))).rejects.toEqual(code('changed'));
    await mkdir(at('d'));
    await writeFile(at('d/x'), '');
    await expect(tree.remove('d', { kind: 'folder' })).rejects.toEqual(code('not-empty'));
    expect(await readFile(at('f'), 'utf8')).toBe('newer');
    expect((await readdir(root)).sort()).toEqual(['d', 'f', 'taken']);
  });

  it('leaves nothing behind if the content differs or is incomplete', async () => {
    await expect(tree.write('f', fileOf('one'), null, content('two'))).rejects.toEqual(code('changed'));
    await expect(tree.write('f', fileOf('one'), null, content('longer'))).rejects.toEqual(code('changed'));
    await expect(
      tree.write('f', fileOf('one'), null, async (sink) => {
        await sink.begin(0o644);
        throw new Error('broke');
      }),
    ).rejects.toEqual(code('failed'));
    await expect(tree.write('f', fileOf(''), null, async () => {})).rejects.toEqual(code('changed'));
    expect(await readdir(root)).toEqual([]);
  });

  it('never leaves the root, through a path, a link on the way, or as a link', async () => {
    const outside = join(folder, 'outside');
    await mkdir(outside);
    await writeFile(join(outside, 'f'), 'mine');
    await symlink(outside, at('way'));
    await symlink(join(outside, 'f'), at('file'));
    for (const path of ['../outside/g', '/tmp/g', 'a/../../outside/g', 'way/g', 'way/f', '.', '']) {
      await expect(write(path, 'theirs')).rejects.toEqual(code('unsafe'));
      await expect(tree.makeFolder(path)).rejects.toEqual(code('unsafe'));
      await expect(tree.makeLink(path, { kind: 'link', target: 'x' }, null)).rejects.toEqual(code('unsafe'));
      await expect(tree.remove(path, fileOf('mine'))).rejects.toEqual(code('unsafe'));
      await expect(tree.rename(path, 'z', fileOf('mine'))).rejects.toEqual(code('unsafe'));
      await expect(tree.setExecutable(path, true, fileOf('mine'))).rejects.toEqual(code('unsafe'));
      await expect(
        tree.read(path, fileOf('mine'), { begin: async () => {}, data: async () => {} }),
      ).rejects.toEqual(code('unsafe'));
    }
    await writeFile(at('z'), 'z');
    await expect(tree.rename('z', '../outside/z', fileOf('z'))).rejects.toEqual(code('unsafe'));
    await expect(tree.makeLink('l', { kind: 'link', target: '../outside' }, null)).rejects.toEqual(
      code('unsafe'),
    );
    // A link in place of a file is neither read nor written through.
    await expect(write('file', 'theirs', fileOf('mine'))).rejects.toEqual(code('changed'));
    await expect(
      tree.read('file', fileOf('mine'), { begin: async () => {}, data: async () => {} }),
    ).rejects.toEqual(code('changed'));
    expect(await readdir(outside)).toEqual(['f']);
    expect(await readFile(join(outside, 'f'), 'utf8')).toBe('mine');
  });

  it('replaces a link by a file and a file by a link atomically', async () => {
    await writeFile(at('f'), 'f');
    await symlink('f', at('l'));
    await tree.scan(rules);
    await write('l', 'now a file', { kind: 'link', target: 'f' });
    expect((await lstat(at('l'))).isFile()).toBe(true);
    await tree.makeLink('f', { kind: 'link', target: 'l' }, fileOf('f'));
    expect(await readlink(at('f'))).toBe('l');
  });
});

/** Scans until no change is reported during a scan: that one would count for the changes after it. */
async function scanQuietly(rules: Rules, told: () => number): Promise<void> {
  for (let before = -1; before !== told(); ) {
    before = told();
    await tree.scan(rules);
  }
}

it('watches a folder that replaced another one', async () => {
  let told = 0;
  let heard = () => {};
  const next = () =>
    new Promise<void>((resolve) => {
      heard = resolve;
    });
  tree.watch(() => {
    told += 1;
    heard();
  });
  const all = { lines: [], git: false };
  await mkdir(at('d'));
  await tree.scan(all);
  let change = next();
  await rm(at('d'), { recursive: true });
  await mkdir(at('d'));
  await change;
  await scanQuietly(all, () => told);
  change = next();
  await writeFile(at('d/f'), '1');
  await change;
});

it('reports a change once until the next scan, also in new folders, but not in excluded ones', async () => {
  let told = 0;
  let heard = () => {};
  const next = () =>
    new Promise<void>((resolve) => {
      heard = resolve;
    });
  tree.watch(() => {
    told += 1;
    heard();
  });
  const only = { lines: ['out'], git: false };
  await mkdir(at('d'));
  await mkdir(at('out'));
  await tree.scan(only);
  expect(tree.watched).toBe(true);
  let change = next();
  await writeFile(at('d/f'), '1');
  await change;
  await writeFile(at('d/f'), '2');
  await mkdir(at('d/e'));
  await scanQuietly(only, () => told);
  const before = told;
  change = next();
  await writeFile(at('out/x'), '');
  await rename(at('d/f'), at('d/e/g'));
  await change;
  expect(told).toBe(before + 1);
});
