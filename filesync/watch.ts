import { type FSWatcher, watch as watchPath } from 'node:fs';
import { basename, join } from 'node:path';
import { isTemporaryName } from './entries.ts';

/** Each costs the kernel a kilobyte and Node a few. */
const maxWatchers = 20_000;

export interface Watcher {
  /** The folders there are now, by their paths below the root. */
  update(folders: Iterable<string>): void;
  readonly complete: boolean;
  close(): void;
}

/**
 * Watches a tree. On Linux each folder by itself, so that those left out by the rules cost nothing (Node's own
 * recursive watching looks into every folder); elsewhere the system watches all below the root.
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
        // Our own halves; what they become is reported under its name.
        if (!isTemporaryName(last)) onChange();
        // A folder that is taken away, or replaced, says so by its own name, and nothing afterwards: the next scan
        // watches what is there then. A child of that name costs one needless watcher.
        if (kind === 'rename' && folder !== '' && last === basename(folder)) drop();
      });
      // The folder is gone, or the system gives no more: the next scan tells.
      watcher.on('error', drop);
      watchers.set(folder, watcher);
    } catch (error) {
      // One that is gone since the scan is no loss.
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
