import ignore from 'ignore';

/** Which paths a sync leaves alone, on both sides. */
export interface Rules {
  /** As in .gitignore; the last that matches decides. */
  lines: readonly string[];
  /** Whether repositories (`.git`) take part. */
  git: boolean;
}

/** Letters that some file systems do not see in a name: `.g<U+200C>it` is `.git` there. */
const unseen = /[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]/g;
/** The name that the least strict file system takes this one for. */
export const foldName = (name: string): string => name.replace(unseen, '').toLowerCase();
const isGit = (name: string) => /^(\.git|git~1)$/.test(foldName(name));

/** macOS and Windows take `.ENV` for `.env`: a rule for one must cover the other there, as it does in git. */
const ignoresCase = process.platform === 'darwin' || process.platform === 'win32';

/**
 * Tells which paths are left alone. Whatever the lines say, `.git` is among them unless it was asked for: what is in
 * there (hooks, settings) runs as a program on this machine.
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
