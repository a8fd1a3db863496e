import { type FSWatcher, watch as watchPath } from 'node:fs';
import { basename, join } from 'node:path';
import { isTemporaryName } from './entries.ts';

/** Each costs one kilobyte in the kernel and a few in Node. */
const maxWatchers = 20_000;

export interface Watcher {
  /** Sets the folders to watch, as paths below the root. */
  update(folders: Iterable<string>): void;
  readonly complete: boolean;
  close(): void;
}

/**
 * Watches a tree. On Linux each folder has its own watcher, so that ignored folders cost nothing (Node's recursive watcher
 * visits every folder); elsewhere the system watches everything below the root.
 */
export function makeWatcher(root: string, onChange: () => void): Watcher {
  const perFolder = process.platform === 'linux';
  const watchers = new Map<string, FSWatcher>();
  let complete = true;

  function add(folder: string): void {
    try {
      const watcher = watchPath(join(root, folder), { recursive: !perFolder, persistent: false });
      const drop = () => {
        watcher.close();
        if (watchers.get(folder) === watcher) watchers.delete(folder);
      };
      watcher.on('change', (kind, name) => {
        const last = String(name ?? '')
          .split(/[\\/]/)
          .at(-1)!;
        // Ignore our temporary files; the final name is reported separately.
        if (!isTemporaryName(last)) onChange();
        // A folder that is removed or replaced reports its own name and nothing afterwards; the next scan watches what is
        // there then. A child with the same name only costs a new watcher.
        if (kind === 'rename' && folder !== '' && last === basename(folder)) drop();
      });
      // The folder is gone, or the system's limit is reached; the next scan finds out.
      watcher.on('error', drop);
      watchers.set(folder, watcher);
    } catch (error) {
      // The folder may have been removed since the scan.
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') complete = false;
    }
  }

  return {
    update(folders) {
      const wanted = new Set(['', ...(perFolder ? folders : [])]);
      for (const [folder, watcher] of watchers)
        if (!wanted.has(folder)) {
          watcher.close();
          watchers.delete(folder);
        }
      complete = true;
      for (const folder of wanted) {
        if (watchers.has(folder)) continue;
        if (watchers.size >= maxWatchers) {
          complete = false;
          break;
        }
        add(folder);
      }
    },
    get complete() {
      return complete;
    },
    close() {
      for (const watcher of watchers.values()) watcher.close();
      watchers.clear();
    },
  };
}
