import { createHash, randomUUID } from 'node:crypto';
import {
  chmod,
  copyFile,
  lchown,
  link,
  lstat,
  mkdir,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  symlink,
} from 'node:fs/promises';
import { join } from 'node:path';

const codeOf = (error: unknown) => (error as NodeJS.ErrnoException).code;
const hashOf = (content: Buffer | string) => createHash('sha256').update(content).digest('base64url');

/** What a home was given so far: path to hash; `folder` for a folder, `large` for a file that is not compared. */
export type DeliveredFiles = Record<string, string>;

/** Larger files are given once and never renewed: reading a toolchain in a skeleton at each start takes too long. */
const maxUpdatedBytes = 4 * 1024 * 1024;

/**
 * Gives a home the files of a skeleton that it never had, and newer ones of those that the developer left as we
 * gave them. What the developer changed or removed stays so. Nothing is written in place: a staged file is
 * linked in, which neither follows nor replaces what is there.
 * @returns the new record, and the names of what was added or renewed
 */
export async function deliverSkeleton(options: {
  skeleton: string;
  home: string;
  /** A folder on the home's file system, out of the developer's way. */
  staging: string;
  owner: { uid: number; gid: number } | null;
  delivered: DeliveredFiles;
  /** Another skeleton, whose files win over those of the same name here. */
  overlay?: string;
  /** Hears of a file that could not be delivered: that is no reason to have no workspace. Without it, it is an error. */
  onError?: (text: string) => void;
}): Promise<{ delivered: DeliveredFiles; added: string[] }> {
  const { skeleton, home, staging, owner } = options;
  const delivered = { ...options.delivered };
  const added: string[] = [];
  await mkdir(staging, { recursive: true });
  const own = (path: string) => (owner ? lchown(path, owner.uid, owner.gid) : undefined);

  async function deliver(name: string): Promise<boolean> {
    const source = join(skeleton, name);
    const target = join(home, name);
    const had = delivered[name];
    const kind = await lstat(source);
    const there = await lstat(target).catch((error) =>
      codeOf(error) === 'ENOENT' ? null : Promise.reject(error),
    );
    if (kind.isDirectory()) {
      if (!there) {
        if (had) return false;
        await mkdir(target, { mode: kind.mode & 0o755 });
        await own(target);
      }
      delivered[name] = 'folder';
      return there === null || there.isDirectory();
    }
    if (!kind.isFile() && !kind.isSymbolicLink()) return false;
    const isLarge = kind.isFile() && kind.size > maxUpdatedBytes;
    if (isLarge && (there || had)) return false;
    const content = kind.isSymbolicLink() ? await readlink(source) : isLarge ? '' : await readFile(source);
    const hash = isLarge ? 'large' : hashOf(content);
    if (there) {
      if (had === hash || !there.isFile() || !kind.isFile()) return false;
      const current = hashOf(await readFile(target));
      // Ours from a moment before a kill, or the developer's own of the same content.
      if (current === hash) delivered[name] = hash;
      if (current !== had) return false;
    } else if (had) return false;
    const staged = join(staging, randomUUID());
    try {
      if (kind.isSymbolicLink()) await symlink(content.toString(), staged);
      else {
        await copyFile(source, staged);
        await chmod(staged, kind.mode & 0o755);
      }
      await own(staged);
      if (there) await rename(staged, target);
      else await link(staged, target);
      delivered[name] = hash;
      added.push(name);
    } catch (error) {
      if (codeOf(error) !== 'EEXIST') throw error;
    } finally {
      await rm(staged, { force: true });
    }
    return true;
  }

  async function walk(below: string): Promise<void> {
    const entries = await readdir(join(skeleton, below)).catch(() => []);
    for (const entry of entries.sort()) {
      const name = below ? `${below}/${entry}` : entry;
      try {
        const shadow = options.overlay && (await lstat(join(options.overlay, name)).catch(() => null));
        if (shadow && !shadow.isDirectory()) continue;
        if ((await deliver(name)) && (await lstat(join(skeleton, name))).isDirectory()) await walk(name);
      } catch (error) {
        if (!options.onError) throw error;
        options.onError(`dotfile ${name} was not delivered: ${(error as Error).message}`);
      }
    }
  }
  await walk('');
  return { delivered, added };
}
