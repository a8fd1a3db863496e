import { existsSync } from 'node:fs';
import { mkdir, readlink, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

/** The agent's own links lead there, also those of an agent that was killed. */
const isOwn = (target: string) => target.startsWith(join(tmpdir(), 'cde-')) && target.endsWith('/bin/cde');

/**
 * Links `~/.local/bin/cde` to the agent's command. Login shells of many images set PATH themselves (Debian's /etc/profile does), so
 * the folder that the agent adds to PATH is lost there. Returns null if something else has that name, or if `searchPath` has
 * another `cde`, which the link could hide: that one is the complete CLI.
 */
export async function linkCommand(
  home: string,
  target: string,
  searchPath: string,
): Promise<{ command: string; remove(): Promise<void> } | null> {
  // The root folder is the home of users that have none.
  if (home === '/') return null;
  const path = join(home, '.local/bin/cde');
  const remove = async () => {
    if (isOwn(await readlink(path).catch(() => ''))) await rm(path, { force: true });
  };
  try {
    // Homes are kept, so the link of an earlier agent may be there.
    await remove();
    if (searchPath.split(':').some((folder) => existsSync(join(folder, 'cde')))) return null;
    await mkdir(dirname(path), { recursive: true });
    await symlink(target, path);
  } catch {
    return null;
  }
  return { command: '~/.local/bin/cde', remove };
}
