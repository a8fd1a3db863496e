import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

export interface Modules {
  /** Loads a module unless it is loaded. Returns null if it is, otherwise modprobe's error. */
  ensure(name: string): Promise<string | null>;
}

/** How long a module that could not be loaded is not tried again. */
const againMs = 30_000;

/**
 * Modules are loaded by the image's modprobe, from the node's /lib/modules mounted read-only. That needs only CAP_SYS_MODULE;
 * entering the mount namespace of process 1 would need the node's process ids and almost every capability. Modules are never
 * unloaded, because nobody knows what else uses them.
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
  /** Some built-in modules are not in /sys/module: those that modprobe accepted are not tried again. */
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
