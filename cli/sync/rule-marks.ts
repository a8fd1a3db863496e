import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { lstat } from 'node:fs/promises';
import { join } from 'node:path';
import { foldName } from '@cde/filesync/rules.ts';
import type { Tree } from '@cde/filesync/tree.ts';
import { configDir } from '../config/config.ts';
import { writeAtomically } from '../config/files.ts';

/** A `.gitignore` as a workspace left it on this machine. */
interface Mark {
  path: string;
  /** Of its content; null: the workspace deleted it. */
  hash: string | null;
  /** Null while the write is in progress: the content alone decides then. */
  mtimeNs: string | null;
}

export interface RuleMarks {
  /** True when the file is exactly what a workspace left there, and nobody has saved it since. */
  isFromWorkspace(file: string, found: { hash: string; mtimeNs: bigint } | null): boolean;
  set(mark: Mark): void;
}

/**
 * Remembers which `.gitignore` files a workspace wrote on this machine. Without `--gitignore` they are files like any
 * other; a later sync with `--gitignore`, of this folder or one in it, must not take them for the person's own rules.
 * One small file per mark, kept apart from the state of a sync: `--forget` and other workspaces do not lose it.
 */
export function openRuleMarks(env: NodeJS.ProcessEnv): RuleMarks {
  const folder = join(configDir(env), 'sync', 'from-workspaces');
  const fileOf = (path: string) =>
    join(folder, `${createHash('sha256').update(path).digest('hex').slice(0, 32)}.json`);
  return {
    isFromWorkspace(path, found) {
      const mark = readMark(fileOf(path));
      if (mark?.path !== path) return false;
      const isSame = found
        ? mark.hash === found.hash && (mark.mtimeNs === null || mark.mtimeNs === String(found.mtimeNs))
        : mark.hash === null;
      // The person has changed it: it is theirs from now on, even if it gets the same content again.
      if (!isSame) rmSync(fileOf(path), { force: true });
      return isSame;
    },
    set(mark) {
      mkdirSync(folder, { recursive: true, mode: 0o700 });
      writeAtomically(fileOf(mark.path), JSON.stringify(mark), 0o600);
    },
  };
}

function readMark(file: string): Mark | null {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as Mark;
  } catch {
    return null;
  }
}

/** The local tree of a sync, which marks each `.gitignore` before and after the workspace's version is written. */
export function markRuleFiles<T extends Tree>(tree: T, root: string, marks: RuleMarks): T {
  const marking = (path: string) => foldName(path.slice(path.lastIndexOf('/') + 1)) === '.gitignore';
  const { write, remove } = tree;
  tree.write = async (path, entry, expected, fill) => {
    if (!marking(path)) return write(path, entry, expected, fill);
    const mark = { path: join(root, path), hash: entry.hash, mtimeNs: null };
    marks.set(mark);
    await write(path, entry, expected, fill);
    const stats = await lstat(mark.path, { bigint: true });
    marks.set({ ...mark, mtimeNs: String(stats.mtimeNs) });
  };
  tree.remove = async (path, expected) => {
    if (marking(path)) marks.set({ path: join(root, path), hash: null, mtimeNs: null });
    return remove(path, expected);
  };
  return tree;
}
