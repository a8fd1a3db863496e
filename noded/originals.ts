import { closeSync, fsyncSync, mkdirSync, openSync, readFileSync, renameSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { z } from 'zod';

const Entry = z.strictObject({
  /** The value before our first change since the node booted. */
  original: z.string(),
  /** The value that we set. During a write also the old and the new one: then there are several. */
  set: z.array(z.string()),
  /** The namespace of the setting: a noded in another namespace sees a different setting with the same name. */
  namespace: z.string().nullable(),
});
const File = z.strictObject({ bootId: z.string(), sysctls: z.record(z.string(), Entry) });
export type Original = z.infer<typeof Entry>;

/** The original values, on the node's own disk. They are written before the kernel is, so that they can always be restored. */
export interface Originals {
  get(sysctl: string): Original | undefined;
  /** On disk when this returns. Undefined removes the record. */
  put(sysctl: string, entry: Original | undefined): void;
  names(): string[];
}

/** Replaces a file so that a node that loses power has either the old one or the new one, complete. */
export function replaceFile(path: string, text: string): void {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  const draft = `${path}.new`;
  const file = openSync(draft, 'w', 0o600);
  try {
    writeSync(file, text);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  renameSync(draft, path);
  const folder = openSync(dirname(path), 'r');
  try {
    fsyncSync(folder);
  } finally {
    closeSync(folder);
  }
}

/**
 * Opens the record at `path`. A record of an earlier boot is discarded, because a new kernel has none of our values.
 * @throws if a record cannot be read: overwriting it would lose the original values
 */
export function openOriginals(path: string, bootId: string): Originals {
  let sysctls: Record<string, Original> = {};
  try {
    const record = File.parse(JSON.parse(readFileSync(path, 'utf8')));
    if (record.bootId === bootId) sysctls = record.sysctls;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT')
      throw new Error(
        `The record of original values ${path} cannot be read: ${(error as Error).message}. ` +
          'Restore the values that it names by hand and remove it. noded continues then.',
      );
  }
  return {
    get: (sysctl) => sysctls[sysctl],
    names: () => Object.keys(sysctls),
    put(sysctl, entry) {
      const { [sysctl]: _, ...others } = sysctls;
      // What is repaired every few seconds must not be written to the disk as often.
      if (JSON.stringify(sysctls[sysctl]) === JSON.stringify(entry)) return;
      const next = entry ? { ...others, [sysctl]: entry } : others;
      replaceFile(path, `${JSON.stringify({ bootId, sysctls: next })}\n`);
      sysctls = next;
    },
  };
}
