import { readFileSync } from 'node:fs';
import { replaceFile } from './originals.ts';
import { type Profile, readProfiles } from './profiles.ts';

/** The profiles in force, and what is wrong with a newer file. */
export interface Profiles {
  /** Null if this node has never seen a valid file, so the wanted profiles are unknown. */
  profiles: readonly Profile[] | null;
  fault: string | null;
}

/**
 * Reads the file of profiles, which Kubernetes replaces when its ConfigMap changes. If it is invalid or missing, the last valid one
 * stays in force, also after a restart, because a copy is kept in `lastGood`.
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
      // Reading takes some microseconds, and sees swapped links and rewritten files alike, where watches differ.
      const text = textOf(file);
      if (text === seen) return current;
      seen = text;
      if (text === null) {
        current = { ...current, fault: `The file of profiles ${file} does not exist.` };
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
