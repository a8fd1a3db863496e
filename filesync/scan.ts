import { createHash, hash as hashOf } from 'node:crypto';
import { type BigIntStats, constants } from 'node:fs';
import { lstat, open, readdir, readlink, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { type Entries, type Entry, isSafeLink, isSafePath, isTemporaryName } from './entries.ts';
import { readName } from './names.ts';
import type { makeIgnored } from './rules.ts';
import { type Scan, type SkippedPath, TreeError } from './tree.ts';

/** An entry with the metadata that shows whether it has changed, without reading it again. */
export interface CachedEntry {
  entry: Entry;
  /** Size, times and inode of a file or link. */
  mark: string;
  /** Read so soon after it was written that another write could leave the mark unchanged. */
  recentlyModified: boolean;
}

/** The coarsest timestamps in use are FAT's, of two seconds. */
const recentMs = 2_000;
/** Files inspected in parallel. */
const concurrency = 32;
const pieceBytes = 256 * 1024;
/** Beyond this, memory and scan time are unreasonable for a background tool. */
const maxEntries = 500_000;
/** A temporary file this old was left by a killed process. */
const staleTemporaryMs = 3600_000;

export const markOf = (stats: BigIntStats): string =>
  `${stats.size} ${stats.mtimeNs} ${stats.ctimeNs} ${stats.ino} ${stats.mode & 0o777n}`;
export const isExecutable = (stats: BigIntStats): boolean => (stats.mode & 0o100n) !== 0n;
/** Times further in the future were set explicitly; the next write changes them. */
const isRecentlyModified = (stats: BigIntStats) =>
  Math.abs(Date.now() - Number(stats.mtimeNs / 1_000_000n)) < recentMs;

/** Inspects a path; null if nothing is there. `before` avoids reading what has not changed. */
export async function inspectPath(
  root: string,
  path: string,
  before: CachedEntry | undefined,
): Promise<CachedEntry | SkippedPath['why'] | null> {
  const full = join(root, path);
  // A file that is being written may change while it is read.
  for (let attempt = 0; attempt < 3; attempt += 1) {
    const stats = await lstat(full, { bigint: true }).catch(absent);
    if (!stats) return null;
    const mark = markOf(stats);
    if (stats.isDirectory())
      return {
        entry: { kind: 'folder', mode: Number(stats.mode & 0o777n) },
        mark: '',
        recentlyModified: false,
      };
    if (before && before.mark === mark && !before.recentlyModified) return before;
    const recentlyModified = isRecentlyModified(stats);
    if (stats.isSymbolicLink()) {
      const bytes = await readlink(full, 'buffer').catch(absent);
      if (bytes === null) continue;
      const target = readName(bytes).text;
      if (target === null) return 'name';
      return isSafeLink(path, target)
        ? { entry: { kind: 'link', target }, mark, recentlyModified: recentlyModified }
        : 'link-leaves';
    }
    if (!stats.isFile()) return 'not-regular';
    const hash = await hashFile(full, Number(stats.size));
    if (hash === null) continue;
    const after = await lstat(full, { bigint: true }).catch(absent);
    if (after && markOf(after) === mark)
      return {
        entry: { kind: 'file', hash, size: Number(stats.size), executable: isExecutable(stats) },
        mark,
        recentlyModified: recentlyModified,
      };
  }
  return 'changing';
}

/** Null if the file is gone, or no longer a regular file. */
async function hashFile(path: string, size: number): Promise<string | null> {
  const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK).catch(
    (error: NodeJS.ErrnoException) => {
      if (error.code === 'ELOOP' || error.code === 'ENXIO') return null;
      return absent(error);
    },
  );
  if (!file) return null;
  try {
    const buffer = Buffer.allocUnsafe(Math.min(pieceBytes, size + 1));
    const { bytesRead } = await file.read(buffer, 0, buffer.length, null);
    if (bytesRead < buffer.length) return hashOf('sha256', buffer.subarray(0, bytesRead), 'base64url');
    const hash = createHash('sha256').update(buffer.subarray(0, bytesRead));
    for (;;) {
      const { bytesRead: more } = await file.read(buffer, 0, buffer.length, null);
      if (more === 0) break;
      hash.update(buffer.subarray(0, more));
    }
    return hash.digest('base64url');
  } finally {
    await file.close();
  }
}

function absent(error: NodeJS.ErrnoException): null {
  if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return null;
  throw error;
}

const isUnreadable = (error: unknown) =>
  ['EACCES', 'EPERM', 'EIO', 'ESTALE'].includes((error as NodeJS.ErrnoException).code ?? '');

/** Scans a whole tree, reusing the results of the previous scan. Rejects if the root is gone. */
export async function scanTree(
  root: string,
  ignored: ReturnType<typeof makeIgnored>,
  before: ReadonlyMap<string, CachedEntry>,
): Promise<{ scan: Scan; known: Map<string, CachedEntry> }> {
  const entries: Entries = new Map();
  const known = new Map<string, CachedEntry>();
  const unknown: SkippedPath[] = [];
  const folders = [''];
  for (let folder = folders.pop(); folder !== undefined; folder = folders.pop()) {
    const names = await list(folder);
    for (let at = 0; at < names.length; at += concurrency)
      await Promise.all(names.slice(at, at + concurrency).map((name) => visit(folder, name)));
    if (entries.size > maxEntries)
      throw new TreeError('too-large', `${root} holds more than ${maxEntries} files and folders`);
  }
  // Sorted by path, so folders come before their content and equal trees give equal lists.
  const sorted: Entries = new Map([...entries].sort(([one], [other]) => (one < other ? -1 : 1)));
  return { scan: { entries: sorted, skipped: unknown }, known };

  async function list(folder: string): Promise<Buffer[]> {
    try {
      return await readdir(join(root, folder), { encoding: 'buffer' });
    } catch (error) {
      if (folder === '') throw new TreeError('root-missing', `${root} is gone`, { cause: error });
      if (isUnreadable(error)) unknown.push({ path: folder, why: 'unreadable' });
      else absent(error as NodeJS.ErrnoException);
      return [];
    }
  }

  async function visit(folder: string, bytes: Buffer): Promise<void> {
    const { text, shown } = readName(bytes);
    const name = text ?? shown;
    const path = folder === '' ? name : `${folder}/${name}`;
    if (isTemporaryName(name)) return removeAbandoned(path);
    // The name cannot be represented on the other side.
    if (text === null || !isSafePath(path)) {
      unknown.push({ path, why: 'name' });
      return;
    }
    // Most ignored paths are recognized by name, without inspecting them.
    if (ignored(path, false)) return;
    try {
      const found = await inspectPath(root, path, before.get(path));
      if (found === null) return;
      if (typeof found === 'string') {
        unknown.push({ path, why: found });
        return;
      }
      if (found.entry.kind === 'folder') {
        if (ignored(path, true)) return;
        folders.push(path);
      }
      entries.set(path, found.entry);
      known.set(path, found);
    } catch (error) {
      if (!isUnreadable(error)) throw error;
      unknown.push({ path, why: 'unreadable' });
    }
  }

  async function removeAbandoned(path: string): Promise<void> {
    const full = join(root, path);
    const stats = await lstat(full).catch(() => null);
    if (stats?.isFile() && Date.now() - stats.mtimeMs > staleTemporaryMs)
      await rm(full, { force: true }).catch(() => {});
  }
}
