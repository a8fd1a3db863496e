import { sameEntry } from '@cde/filesync/entries.ts';
import { foldName } from '@cde/filesync/rules.ts';
import type { Trees } from './reconcile.ts';

/**
 * Rule files decide what leaves this machine, so a workspace must not be able to change them: it could empty
 * `.cdeignore` and receive every secret that was excluded. They are copied to the workspace and never from it.
 */
export interface HeldRuleFile {
  path: string;
  /** What the workspace has done to its copy. */
  change: 'added' | 'changed' | 'removed';
}

/**
 * Whether a path is a rule file of this sync, or of another one further down (any `.cdeignore`). Names are compared as
 * the least strict file system does: `.CDEIGNORE` is the same file on macOS and Windows.
 */
export function makeIsRuleFile({ gitignore }: { gitignore: boolean }): (path: string) => boolean {
  return (path) => {
    const name = foldName(path.slice(path.lastIndexOf('/') + 1));
    return name === '.cdeignore' || (gitignore && name === '.gitignore' && !path.includes('/'));
  };
}

/**
 * The rule files that reconciling would write or delete on this machine because of what the workspace did. A change
 * made here is not held: it goes to the workspace, and a version that the workspace changed as well is kept beside it.
 */
export function findHeldRuleFiles(
  { base, local, remote }: Trees,
  isRuleFile: (path: string) => boolean,
): HeldRuleFile[] {
  const held: HeldRuleFile[] = [];
  const look = (path: string) => {
    const was = base.get(path);
    const here = local.get(path);
    const there = remote.get(path);
    if (sameEntry(there, was) || sameEntry(there, here)) return;
    const contentOf = (entry: typeof here) => (entry?.kind === 'file' ? entry.hash : entry);
    const isChangedHere = here !== undefined && !sameEntry(here, was) && contentOf(here) !== contentOf(was);
    // Their content is the same, so only the right to run the file would be copied.
    const isModeOnly = contentOf(here) === contentOf(there);
    if (isChangedHere && !isModeOnly) return;
    held.push({ path, change: !there ? 'removed' : was || here ? 'changed' : 'added' });
  };
  for (const path of remote.keys()) if (isRuleFile(path)) look(path);
  for (const path of base.keys()) if (!remote.has(path) && isRuleFile(path)) look(path);
  return held;
}
