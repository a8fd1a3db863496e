import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findRoot, makeDiskTree } from './disk.ts';
import type { FileEntry } from './entries.ts';

/** Mounts a separate file system, which requires root. */
const mount = (options: string, at: string): boolean => {
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', options, 'tmpfs', at], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
};
const probe = join(tmpdir(), `cde-mount-${process.pid}`);
await mkdir(probe);
const canMount = process.platform === 'linux' && mount('size=64k', probe);
if (canMount) execFileSync('umount', [probe]);
await rm(probe, { recursive: true });

describe.skipIf(!canMount)('errors of the system keep their own wording', () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'cde-system-'));
    for (const name of ['full', 'readonly']) await mkdir(join(folder, name));
    mount('size=256k', join(folder, 'full'));
    mount('ro', join(folder, 'readonly'));
  });
  afterAll(async () => {
    for (const name of ['full', 'readonly']) execFileSync('umount', [join(folder, name)]);
    await rm(folder, { recursive: true });
  });

  it('a full disk leaves nothing behind', async () => {
    const root = await findRoot(join(folder, 'full'), false);
    const tree = makeDiskTree(root);
    const content = Buffer.alloc(1024 * 1024, 'x');
    const entry: FileEntry = {
      kind: 'file',
      hash: createHash('sha256').update(content).digest('base64url'),
      size: content.length,
      executable: false,
    };
    const writing = tree.write('large', entry, null, async (sink) => {
      await sink.begin(0o644);
      await sink.data(content);
    });
    await expect(writing).rejects.toMatchObject({ code: 'no-space', message: 'the disk is full (ENOSPC)' });
    expect(await readdir(root)).toEqual([]);
    tree.close();
  });

  it('a read-only disk is not reported as a missing file', async () => {
    const root = join(folder, 'readonly');
    for (const path of [join(root, 'new'), join(root, 'new/deep/er')])
      await expect(findRoot(path, true)).rejects.toMatchObject({
        code: 'unreadable',
        message: expect.stringContaining('cannot be made: the file system is read-only (EROFS)'),
      });
    await expect(findRoot(root, true)).resolves.toBe(root);
    const tree = makeDiskTree(root);
    await expect(tree.makeFolder('x')).rejects.toMatchObject({ code: 'unreadable' });
    tree.close();
  });
});

describe('a path where no folder can be created', () => {
  it.skipIf(process.platform !== 'linux')(
    'is refused, and does not block a thread indefinitely',
    async () => {
      await expect(findRoot('/proc/cde/deep', true)).rejects.toMatchObject({ code: 'unreadable' });
    },
  );
  it('a file in the way', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'cde-way-'));
    await writeFile(join(folder, 'file'), '');
    for (const path of ['file', 'file/below'])
      await expect(findRoot(join(folder, path), true)).rejects.toMatchObject({ code: 'root-not-folder' });
    await rm(folder, { recursive: true });
  });
});
