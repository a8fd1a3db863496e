import { enableCompileCache } from 'node:module';
import { homedir } from 'node:os';
import { join } from 'node:path';

/**
 * Keeps stripped and compiled code between runs: without it every run strips the types of each file again
 * (about 40 ms). In the user's own cache directory: Node's default is one in /tmp that others can write to.
 */
export function cacheCompiledCode() {
  const caches =
    process.env.XDG_CACHE_HOME ||
    (process.platform === 'darwin' ? join(homedir(), 'Library', 'Caches') : join(homedir(), '.cache'));
  // A cache that cannot be written costs time and nothing else, so its status is not looked at.
  enableCompileCache(process.env.NODE_COMPILE_CACHE || join(caches, 'cde', 'compiled'));
}
