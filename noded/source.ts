import { readFileSync } from 'node:fs';
import { replaceFile } from './originals.ts';
import { type Profile, readProfiles } from './profiles.ts';

/** The profiles in force, and what is wrong with the file that should have given others. */
export interface Profiles {
  /** Null: no good file was ever seen on this node, so nothing is known of what is wanted. */
  profiles: readonly Profile[] | null;
  fault: string | null;
}

/**
 * Reads the file of profiles, which Kubernetes replaces when its ConfigMap changes. A faulty one, or none, leaves
 * the last good one in force, also for the next start: that one is kept in `lastGood`.
 */
export function makeSource({ file, lastGood }: { file: string; lastGood: string }): { read(): Profiles } {
  let seen: string | null | undefined;
  let current: Profiles = { profiles: null, fault: null };
  const textOf = (path: string): string | null => {
    try {
      return readFileSync(path, 'utf8');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
      throw error;
    }
  };
  const before = textOf(lastGood);
  if (before !== null) {
    const read = readProfiles(before);
    if ('profiles' in read) current = { profiles: read.profiles, fault: null };
  }
  return {
    read() {
      // A read is some microseconds, and sees a swapped link as well as a file written over, where watches differ.
      const text = textOf(file);
      if (text === seen) return current;
      seen = text;
      if (text === null) {
        current = { ...current, fault: `The file of profiles ${file} is not there.` };
        return current;
      }
      const read = readProfiles(text);
      if ('faults' in read) current = { ...current, fault: read.faults.join('\n') };
      else {
        replaceFile(lastGood, text);
        current = { profiles: read.profiles, fault: null };
      }
      return current;
    },
  };
}
