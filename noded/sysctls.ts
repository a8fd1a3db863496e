import { closeSync, constants, openSync, readFileSync, readlinkSync, writeSync } from 'node:fs';
import { join } from 'node:path';

/** The kernel's settings, by their names with dots. */
export interface Sysctls {
  /** The value with single spaces between its parts; null: this kernel has no such setting. */
  read(name: string): string | null;
  /** @throws what the kernel says against it (EINVAL, EACCES, EROFS, …) */
  write(name: string, value: string): void;
  /** The namespace of this process whose setting it is; null: the node has one of them. */
  namespaceOf(name: string): string | null;
  /** Another one after each boot of the node. */
  bootId(): string;
}

/** `root`: where the node's /proc/sys is. */
export function makeSysctls(root: string): Sysctls {
  const pathOf = (name: string) => join(root, ...name.split('.'));
  const read = (name: string) => {
    try {
      return readFileSync(pathOf(name), 'utf8').trim().replace(/\s+/g, ' ');
    } catch (error) {
      if (['ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) return null;
      throw error;
    }
  };
  return {
    read,
    write(name, value) {
      // Never made anew: a setting that is not there is not one.
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
        throw new Error(`There is no kernel/random/boot_id in ${root}: that is not /proc/sys of a node.`);
      return id;
    },
  };
}
