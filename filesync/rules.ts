import ignore from 'ignore';

/** Which paths are not synchronized. */
export interface Rules {
  /** As in .gitignore: the last match decides. */
  lines: readonly string[];
  /** Whether repositories (`.git`) are synchronized. */
  git: boolean;
}

/** Characters that some file systems ignore in names: `.g<U+200C>it` is `.git` there. */
const ignoredCharacters = /[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]/g;
/** Normalizes a name as the most lenient file system does. */
export const foldName = (name: string): string => name.replace(ignoredCharacters, '').toLowerCase();
const isGit = (name: string) => /^(\.git|git~1)$/.test(foldName(name));

/** macOS and Windows treat `.ENV` and `.env` alike, so a rule for one must cover the other, as in git. */
const ignoresCase = process.platform === 'darwin' || process.platform === 'win32';

/**
 * Makes the predicate for ignored paths. `.git` is ignored whatever the lines say, unless it was requested: its content
 * (hooks, settings) is executed on this machine.
 */
export function makeIgnored(
  { lines, git }: Rules,
  ignorecase: boolean = ignoresCase,
): (path: string, isFolder: boolean) => boolean {
  const rules = ignore({ ignorecase }).add([...lines]);
  return (path, isFolder) => {
    if (!git && path.split('/').some(isGit)) return true;
    return rules.ignores(isFolder ? `${path}/` : path);
  };
}
