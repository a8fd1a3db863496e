import { type FSWatcher, watch } from 'node:fs';

export interface SysctlWatch {
  /** Watches these files and no others. */
  follow(paths: readonly string[]): void;
  close(): void;
}

/**
 * Calls back when another program of the node writes to a file of /proc/sys. inotify sees writes through the same mount of /proc,
 * which covers systemd, udev, sysctl and tuned, but not programs in containers with a /proc of their own, nor the kernel. So values
 * are also read at regular intervals.
 */
export function watchSysctls(onWrite: () => void): SysctlWatch {
  const watchers = new Map<string, FSWatcher>();
  const stop = (path: string) => {
    watchers.get(path)?.close();
    watchers.delete(path);
  };
  return {
    follow(paths) {
      const wanted = new Set(paths);
      for (const path of watchers.keys()) if (!wanted.has(path)) stop(path);
      for (const path of wanted) {
        if (watchers.has(path)) continue;
        try {
          const watcher = watch(path, (event) => {
            // A file that was removed: its interface is gone, and may come back.
            if (event === 'rename') stop(path);
            onWrite();
          });
          watcher.on('error', () => stop(path));
          watchers.set(path, watcher);
        } catch {
          // It does not exist, or the node has no inotify watches left.
        }
      }
    },
    close() {
      for (const path of [...watchers.keys()]) stop(path);
    },
  };
}
