import { closeSync, fsyncSync, mkdirSync, openSync, readFileSync, renameSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { z } from 'zod';

const Entry = z.strictObject({
  /** Before the first change of ours since the node booted. */
  original: z.string(),
  /** What we have set; while a write is under way also what was there and what is to be: then there are several. */
  set: z.array(z.string()),
  /** Where it was: a noded that is started in another namespace sees another setting by that name. */
  namespace: z.string().nullable(),
});
const File = z.strictObject({ bootId: z.string(), sysctls: z.record(z.string(), Entry) });
export type Original = z.infer<typeof Entry>;

/** What was there before noded, on the node's own disk. It is written before the kernel is, so that it can always be put back. */
export interface Originals {
  get(sysctl: string): Original | undefined;
  /** On disk when this returns. Undefined takes it out. */
  put(sysctl: string, entry: Original | undefined): void;
  names(): string[];
}

/** Replaces a file so that a node that loses power has the old one or the new one, whole. */
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
 * Opens the record at `path`. One of an earlier boot says nothing any more: the kernel has begun anew, with
 * nothing of ours in it.
 * @throws when there is a record that cannot be read: writing over it would lose what was there before
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
          'Look at it, put back what it names by hand, and remove it; then noded goes on.',
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
