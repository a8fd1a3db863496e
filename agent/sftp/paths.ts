import { link, lstat, realpath, rename, unlink } from 'node:fs/promises';

/**
 * Paths are bytes: a name that is not UTF-8 is kept as it is. A relative one starts at the home, where
 * sftp-server stands as well.
 */
export function resolvePath(home: string, path: Buffer): Buffer {
  if (path.length === 0) return Buffer.from(home);
  if (path[0] === slash) return path;
  return Buffer.concat([Buffer.from(home), Buffer.of(slash), path]);
}

const slash = 0x2f;

export function joinPath(folder: Buffer, name: Buffer): Buffer {
  return Buffer.concat([folder, Buffer.of(slash), name]);
}

/** The real path; like OpenSSH's, of a last component that does not exist yet too. */
export async function realPath(path: Buffer): Promise<Buffer> {
  try {
    return await realpath(path, 'buffer');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    let end = path.length;
    while (end > 1 && path[end - 1] === slash) end -= 1;
    const at = path.lastIndexOf(slash, end - 1);
    const name = path.subarray(at + 1, end);
    if (name.length === 0 || name.equals(Buffer.from('.')) || name.equals(Buffer.from('..'))) throw error;
    const folder = await realpath(at <= 0 ? '/' : path.subarray(0, at), 'buffer');
    return folder.length === 1 ? Buffer.concat([folder, name]) : joinPath(folder, name);
  }
}

/** Version 3's rename, which never replaces a file: by a link where the filesystem has them. */
export async function renameWithoutReplacing(from: Buffer, to: Buffer): Promise<void> {
  const stats = await lstat(from);
  if (stats.isFile()) {
    try {
      await link(from, to);
      await unlink(from);
      return;
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (!['EOPNOTSUPP', 'ENOTSUP', 'ENOSYS', 'EPERM', 'EXDEV', 'EMLINK'].includes(code ?? '')) throw error;
    }
  }
  const taken = await lstat(to).then(
    () => true,
    () => false,
  );
  if (taken) throw Object.assign(new Error('the new name is taken'), { code: 'EEXIST' });
  await rename(from, to);
}
