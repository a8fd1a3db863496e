import { createHash, randomBytes } from 'node:crypto';
import { type BigIntStats, constants } from 'node:fs';
import {
  chmod,
  type FileHandle,
  link,
  lstat,
  mkdir,
  open,
  realpath,
  rename,
  rm,
  rmdir,
  stat,
  symlink,
  unlink,
} from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { systemErrorReason } from '@cde/api/system-errors.ts';
import { type Entry, isSafeLink, isSafePath, type LinkEntry, parentOf, sameEntry } from './entries.ts';
import { makeIgnored } from './rules.ts';
import { type CachedEntry, inspectPath, isExecutable, markOf, scanTree } from './scan.ts';
import { type Scan, type Tree, TreeError } from './tree.ts';
import { makeWatcher } from './watch.ts';

const pieceBytes = 128 * 1024;
const zeros = Buffer.alloc(pieceBytes);
/** Changes come in bursts: a checkout, a build, an editor that saves a file in three steps. */
const settleMs = 60;

/** Scan results that spare the next disk tree of the same root from reading all files again. */
export type ScanCache = ReadonlyMap<string, CachedEntry>;

/** Resolves the root folder of a tree to its real path, and creates it if `create` is set. */
export async function findRoot(path: string, create: boolean): Promise<string> {
  try {
    if (create) await makeFolders(path);
    const real = await realpath(path);
    if (!(await stat(real)).isDirectory()) throw new TreeError('root-not-folder', `${path} is not a folder`);
    return real;
  } catch (error) {
    if (error instanceof TreeError) throw error;
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EEXIST' || code === 'ENOTDIR')
      throw new TreeError('root-not-folder', `${path} is not a folder`, { cause: error });
    if (code === 'ENOENT' && !create)
      throw new TreeError('root-missing', `${path} does not exist`, { cause: error });
    // File systems such as /proc return ENOENT when creating a folder.
    const reason = systemErrorReason(error) ?? String(error);
    throw new TreeError('unreadable', `${path} cannot be ${create ? 'made' : 'opened'}: ${reason}`, {
      cause: error,
    });
  }
}

/** Node's `recursive` option never returns if the file system answers every mkdir with ENOENT, as /proc does. */
async function makeFolders(path: string): Promise<void> {
  try {
    await mkdir(path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EEXIST') return;
    const parent = dirname(path);
    if (code !== 'ENOENT' || parent === path) {
      // A read-only file system reports that even if the folder exists.
      if (await stat(path).catch(() => null)) return;
      throw error;
    }
    await makeFolders(parent);
    await mkdir(path).catch((again: NodeJS.ErrnoException) => {
      if (again.code !== 'EEXIST') throw again;
    });
  }
}

/** A tree on this machine's disk. `root` comes from findRoot. */
export function makeDiskTree(root: string, memory: ScanCache = new Map()): Tree & { memory(): ScanCache } {
  let known = memory as Map<string, CachedEntry>;
  let tell: (() => void) | null = null;
  let told = false;
  let timer: NodeJS.Timeout | undefined;
  const watcher = makeWatcher(root, () => {
    if (!tell || told || timer) return;
    timer = setTimeout(() => {
      timer = undefined;
      if (told) return;
      told = true;
      tell?.();
    }, settleMs);
  });
  const full = (path: string) => join(root, path);

  /** Ensures that an untrusted path stays below the root, and that all its parents are folders. */
  async function guard(path: string): Promise<void> {
    if (!isSafePath(path))
      throw new TreeError('unsafe', `${JSON.stringify(path)} is not a path below the root`);
    for (let parent = parentOf(path); parent !== ''; parent = parentOf(parent)) {
      const stats = await lstat(full(parent)).catch(() => null);
      if (!stats) throw new TreeError('changed', `${parent} is gone`);
      if (!stats.isDirectory()) throw new TreeError('unsafe', `${parent} is not a folder`);
    }
  }

  /** Rejects with `changed` unless the path matches the expected entry. Resolves to its stats. */
  async function expect(path: string, expected: Entry | null): Promise<BigIntStats | null> {
    const stats = await lstat(full(path), { bigint: true }).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return null;
      throw error;
    });
    const fail = () => new TreeError('changed', `${path} has changed`);
    if (!expected || !stats) {
      if (expected || stats) throw fail();
      return null;
    }
    if (expected.kind === 'folder') {
      if (!stats.isDirectory()) throw fail();
      return stats;
    }
    const found = await inspectPath(root, path, known.get(path));
    if (!found || typeof found === 'string' || !sameEntry(found.entry, expected)) throw fail();
    return stats;
  }

  async function remember(path: string, entry: Entry): Promise<void> {
    const stats = await lstat(full(path), { bigint: true });
    known.set(path, { entry, mark: markOf(stats), recentlyModified: true });
  }

  const temporaryPath = (path: string) =>
    join(dirname(full(path)), `.cde-sync-${randomBytes(8).toString('hex')}.tmp`);

  /** Moves a finished file from `from` into place. Never replaces anything unless an entry is expected. */
  async function place(from: string, path: string, expected: Entry | null): Promise<void> {
    await expect(path, expected);
    if (expected) return rename(from, full(path));
    try {
      await link(from, full(path));
      await unlink(from);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'EEXIST') throw new TreeError('changed', `${path} was created meanwhile`);
      // A file system without hard links.
      if (!['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK'].includes(code ?? '')) throw error;
      await rename(from, full(path));
    }
  }

  const tree: Tree & { memory(): ScanCache } = {
    async scan(rules): Promise<Scan> {
      told = false;
      const found = await scanTree(root, makeIgnored(rules), known);
      known = found.known;
      const { entries } = found.scan;
      if (tell) watcher.update([...entries].flatMap(([path, { kind }]) => (kind === 'folder' ? [path] : [])));
      return found.scan;
    },

    async read(path, entry, sink) {
      await guard(path);
      await expect(path, entry);
      const file = await open(full(path), constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
      try {
        const stats = await file.stat({ bigint: true });
        await sink.begin(Number(stats.mode & 0o777n));
        for (let position = 0; position < entry.size; ) {
          const buffer = Buffer.allocUnsafe(Math.min(pieceBytes, entry.size - position));
          const { bytesRead } = await file.read(buffer, 0, buffer.length, position);
          if (bytesRead === 0) throw new TreeError('changed', `${path} became shorter`);
          await sink.data(buffer.subarray(0, bytesRead));
          position += bytesRead;
        }
      } finally {
        await file.close();
      }
    },

    async write(path, entry, expected, fill) {
      await guard(path);
      const there = await expect(path, expected);
      const temporary = temporaryPath(path);
      let file: FileHandle | undefined;
      const hash = createHash('sha256');
      let size = 0;
      try {
        await fill({
          async begin(mode) {
            // The source's permissions less the umask. The owner can always read it, as the next sync must.
            file = await open(temporary, 'wx', (mode & 0o777) | 0o400);
            const made = there?.isFile() ? there : await file.stat({ bigint: true });
            if (there?.isFile() || isExecutable(made) !== entry.executable)
              await file.chmod(withExecutable(made, entry.executable));
          },
          async data(chunk) {
            hash.update(chunk);
            size += chunk.length;
            if (size > entry.size) throw new TreeError('changed', `${path} became longer`);
            // Holes stay holes: a disk image of 100 GiB may contain 1 GiB of data.
            if (isZero(chunk)) return;
            for (let done = 0, from = size - chunk.length; done < chunk.length; )
              done += (await file!.write(chunk, done, chunk.length - done, from + done)).bytesWritten;
          },
        });
        if (!file || size !== entry.size || hash.digest('base64url') !== entry.hash)
          throw new TreeError('changed', `${path} changed while it was read`);
        await file.truncate(size);
        // The saved sync state will record the file, so it must survive a power failure.
        await file.datasync();
        await file.close();
        file = undefined;
        await place(temporary, path, expected);
      } catch (error) {
        await file?.close().catch(() => {});
        await rm(temporary, { force: true });
        throw error;
      }
      await remember(path, entry);
    },

    async setExecutable(path, executable, expected) {
      await guard(path);
      const stats = await expect(path, expected);
      await chmod(full(path), withExecutable(stats!, executable));
      await remember(path, { ...expected, executable });
    },

    async makeFolder(path, mode = 0o777) {
      await guard(path);
      await expect(path, null);
      await mkdir(full(path), (mode & 0o777) | 0o700);
    },

    async makeLink(path: string, entry: LinkEntry, expected) {
      await guard(path);
      if (!isSafeLink(path, entry.target))
        throw new TreeError('unsafe', `${path} would lead out of the root`);
      const temporary = temporaryPath(path);
      try {
        await symlink(entry.target, temporary);
        await place(temporary, path, expected);
      } catch (error) {
        await rm(temporary, { force: true });
        throw error;
      }
      await remember(path, entry);
    },

    async remove(path, expected) {
      await guard(path);
      await expect(path, expected);
      if (expected.kind === 'folder') await rmdir(full(path));
      else await unlink(full(path));
      known.delete(path);
    },

    async rename(path, to, expected) {
      await guard(path);
      await guard(to);
      await expect(path, expected);
      await expect(to, null);
      await rename(full(path), full(to));
      known.delete(path);
    },

    watch(onChange) {
      tell = onChange;
    },
    get watched() {
      return watcher.complete;
    },
    close() {
      tell = null;
      clearTimeout(timer);
      watcher.close();
    },
    memory: () => known,
  };
  return withTreeErrors(tree);
}

const isZero = (chunk: Buffer) =>
  chunk.length >= 4096 && chunk.length <= zeros.length && chunk.equals(zeros.subarray(0, chunk.length));

/** Makes every rejection a TreeError. */
function withTreeErrors<T extends Tree>(tree: T): T {
  for (const key of [
    'scan',
    'read',
    'write',
    'setExecutable',
    'makeFolder',
    'makeLink',
    'remove',
    'rename',
  ] as const) {
    const work = tree[key] as (...args: unknown[]) => Promise<unknown>;
    tree[key] = (async (...args: unknown[]) => {
      try {
        return await work(...args);
      } catch (error) {
        throw asTreeError(error);
      }
    }) as never;
  }
  return tree;
}

/** Makes a file executable for everyone with read permission, or for nobody. */
function withExecutable(stats: BigIntStats, executable: boolean): number {
  const mode = Number(stats.mode & 0o777n);
  if (executable === isExecutable(stats)) return mode;
  return executable ? mode | ((mode & 0o444) >> 2) | 0o100 : mode & ~0o111;
}

export function asTreeError(error: unknown): TreeError {
  if (error instanceof TreeError) return error;
  const { code, message } = error as NodeJS.ErrnoException;
  const is = (...codes: string[]) => codes.includes(code ?? '');
  // The caller adds the path.
  const text = systemErrorReason(error) ?? message ?? String(error);
  if (is('ENOTEMPTY', 'EEXIST')) return new TreeError('not-empty', text, { cause: error });
  if (is('ENOENT', 'ENOTDIR', 'ELOOP')) return new TreeError('changed', text, { cause: error });
  if (is('EACCES', 'EPERM', 'EROFS')) return new TreeError('unreadable', text, { cause: error });
  if (is('ENOSPC', 'EDQUOT')) return new TreeError('no-space', text, { cause: error });
  return new TreeError('failed', text, { cause: error });
}
