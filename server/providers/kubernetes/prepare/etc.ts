import {
  chmod,
  copyFile,
  lchown,
  lstat,
  mkdir,
  readdir,
  readlink,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { join } from 'node:path';

/** What the kubelet mounts there itself; it needs something to mount on. */
const mounted = new Set(['hosts', 'hostname', 'resolv.conf']);

/**
 * Copies a folder with its owners and modes, as root. Sockets and the like are left out; a file that cannot be
 * read is told and left out.
 */
export async function copyEtc(from: string, to: string, log: (text: string) => void): Promise<void> {
  async function walk(below: string): Promise<void> {
    const source = join(from, below);
    const target = join(to, below);
    const own = await lstat(source);
    await mkdir(target, { recursive: true });
    for (const entry of await readdir(source, { withFileTypes: true })) {
      const name = join(below, entry.name);
      if (below === '' && mounted.has(entry.name)) continue;
      try {
        if (entry.isDirectory()) await walk(name);
        else await copy(name, entry.isSymbolicLink(), entry.isFile());
      } catch (error) {
        log(`/etc/${name} was not copied: ${(error as Error).message}`);
      }
    }
    await lchown(target, own.uid, own.gid);
    await chmod(target, own.mode & 0o7777);
  }

  async function copy(name: string, isLink: boolean, isFile: boolean): Promise<void> {
    const source = join(from, name);
    const target = join(to, name);
    if (!isLink && !isFile) return;
    const { uid, gid, mode } = await lstat(source);
    if (isLink) await symlink(await readlink(source), target);
    else await copyFile(source, target);
    await lchown(target, uid, gid);
    if (isFile) await chmod(target, mode & 0o7777);
  }

  await walk('');
  for (const name of mounted) await writeFile(join(to, name), '');
}
