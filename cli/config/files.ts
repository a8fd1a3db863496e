import {
  closeSync,
  fchmodSync,
  fsyncSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Failure } from '../failure/failure.ts';

/**
 * Replaces a file atomically: readers, also after a crash, see either the old or the new content. `path` must not be a
 * symbolic link, because rename would replace the link.
 */
export function writeAtomically(path: string, content: string | Uint8Array, mode: number): void {
  const half = `${path}.${process.pid}.${process.hrtime.bigint()}`;
  const file = openSync(half, 'wx', mode);
  try {
    fchmodSync(file, mode); // open() applies the umask
    const bytes = typeof content === 'string' ? Buffer.from(content) : content;
    for (let at = 0; at < bytes.length; ) at += writeSync(file, bytes, at);
    fsyncSync(file);
    renameSync(half, path);
  } catch (error) {
    rmSync(half, { force: true });
    throw error;
  } finally {
    closeSync(file);
  }
}

/** A lock this old was left by a killed process, because the guarded work takes milliseconds. */
const abandonedMs = 5_000;
const patienceMs = 10_000;

/** Runs `work` while no other `cde` process changes `path`. */
export async function withLock<T>(path: string, work: () => T): Promise<T> {
  const lock = `${path}.lock`;
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  const until = Date.now() + patienceMs;
  for (;;) {
    try {
      mkdirSync(lock);
      break;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
    const since = statSync(lock, { throwIfNoEntry: false })?.mtimeMs;
    if (since !== undefined && Date.now() - since > abandonedMs)
      rmSync(lock, { recursive: true, force: true });
    else if (Date.now() > until)
      throw new Failure('file-locked', `Another cde process has been changing ${path} for ten seconds.`, {
        hint: `If none runs, remove ${lock}.`,
      });
    else await delay(20);
  }
  try {
    return work();
  } finally {
    rmSync(lock, { recursive: true, force: true });
  }
}
