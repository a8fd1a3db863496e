import { closeSync, constants, openSync, readFileSync, readlinkSync, writeSync } from 'node:fs';
import { join } from 'node:path';

/** The kernel's settings, by their dotted names. */
export interface Sysctls {
  /** The value with single spaces between its parts; null: this kernel does not have the setting. */
  read(name: string): string | null;
  /** @throws the kernel's error (EINVAL, EACCES, EROFS, …) */
  write(name: string, value: string): void;
  /** The namespace of this process that the setting belongs to; null: the node has only one. */
  namespaceOf(name: string): string | null;
  /** Changes with each boot of the node. */
  bootId(): string;
}

/** Settings outside /proc/sys that are treated the same: a file with a list of choices, in which the present one is in brackets. */
export const hugePages = 'transparent_hugepage.';
export const hugePagesFolder = '/sys/kernel/mm/transparent_hugepage';

/** Finds the file of a setting. `root`: where the node's /proc/sys is. Slashes in a name stand for dots in the name of an interface. */
export const makePathOf = (root: string, hugePagesRoot: string) => (name: string) =>
  name.startsWith(hugePages)
    ? join(hugePagesRoot, name.slice(hugePages.length))
    : join(root, ...name.split('.').map((part) => part.replaceAll('/', '.')));

export function makeSysctls(root: string, hugePagesRoot = hugePagesFolder): Sysctls {
  const pathOf = makePathOf(root, hugePagesRoot);
  const read = (name: string) => {
    try {
      const text = readFileSync(pathOf(name), 'utf8').trim().replace(/\s+/g, ' ');
      return name.startsWith(hugePages) ? (/\[(.+?)\]/.exec(text)?.[1] ?? text) : text;
    } catch (error) {
      if (['ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) return null;
      throw error;
    }
  };
  return {
    read,
    write(name, value) {
      // Not created: a file that is missing is not a setting.
      const file = openSync(pathOf(name), constants.O_WRONLY | constants.O_TRUNC);
      try {
        writeSync(file, `${value}\n`);
      } finally {
        closeSync(file);
      }
    },
    namespaceOf(name) {
      const kind = name.startsWith('net.') ? 'net' : name === 'kernel.pid_max' ? 'pid' : null;
      return kind && readlinkSync(`/proc/self/ns/${kind}`);
    },
    bootId() {
      const id = read('kernel.random.boot_id');
      if (!id)
        throw new Error(
          `There is no kernel/random/boot_id in ${root}, so it is not the /proc/sys of a node.`,
        );
      return id;
    },
  };
}
