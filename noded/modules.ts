import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

export interface Modules {
  /** Loads a module unless it is there. Null: it is; else what modprobe says against it. */
  ensure(name: string): Promise<string | null>;
}

/** How long nothing is asked again of a module that could not be loaded. */
const againMs = 30_000;

/**
 * Modules are loaded by the image's own modprobe, from the node's /lib/modules mounted for reading: that takes
 * CAP_SYS_MODULE and nothing else, where entering the mount namespace of process 1 would take the node's process
 * ids and nearly all there is. They are never unloaded: who else came to use them cannot be known.
 */
export function makeModules({
  loaded,
  modprobe = 'modprobe',
  now = Date.now,
}: {
  /** The node's /sys/module, which is the same in each container. */
  loaded: string;
  modprobe?: string;
  now?: () => number;
}): Modules {
  /** Some that are built into the kernel are not in /sys/module: what modprobe said good to is not asked again. */
  const builtIn = new Set<string>();
  const failed = new Map<string, { at: number; why: string }>();
  return {
    async ensure(name) {
      if (existsSync(join(loaded, name.replaceAll('-', '_'))) || builtIn.has(name)) return null;
      const before = failed.get(name);
      if (before && now() - before.at < againMs) return before.why;
      try {
        await run(modprobe, ['--', name], { timeout: 20_000 });
        failed.delete(name);
        if (!existsSync(join(loaded, name.replaceAll('-', '_')))) builtIn.add(name);
        return null;
      } catch (error) {
        const { stderr, message } = error as Error & { stderr?: string };
        const why = (stderr?.trim() || message).slice(0, 300);
        failed.set(name, { at: now(), why });
        return why;
      }
    },
  };
}
