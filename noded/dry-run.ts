import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Modules } from './modules.ts';
import type { Original, Originals } from './originals.ts';
import { appliesTo } from './plan.ts';
import type { Profile } from './profiles.ts';
import { type Change, makeReconciler } from './reconcile.ts';
import type { Sysctls } from './sysctls.ts';

/** A kernel that remembers what is written to it, on top of the real one, which is only read. */
function overlay(real: Sysctls): Sysctls {
  const written = new Map<string, string>();
  return {
    ...real,
    read: (name) => written.get(name) ?? real.read(name),
    write: (name, value) => void written.set(name, value),
  };
}

function copyOf(real: Pick<Originals, 'get' | 'names'>): Originals {
  const entries = new Map<string, Original>(real.names().map((name) => [name, real.get(name)!]));
  return {
    get: (name) => entries.get(name),
    names: () => [...entries.keys()],
    put: (name, entry) => void (entry ? entries.set(name, entry) : entries.delete(name)),
  };
}

const words: Record<Change['what'], string> = {
  set: 'set',
  repaired: 'set again',
  restored: 'restore',
  'given-up': 'leave',
};

/**
 * What a pass over the kernel would change, as lines for the admin. It runs the same code as noded, on a copy. Whether the kernel
 * accepts a value, and whether a module can be loaded, only shows when it is done.
 */
export async function describeDryRun({
  profiles,
  labels,
  sysctls,
  originals,
  loadedModules,
  interfacesOf,
}: {
  profiles: readonly Profile[];
  /** Of the node; null: not known, so profiles with a nodeSelector are left out. */
  labels: Readonly<Record<string, string>> | null;
  sysctls: Sysctls;
  originals: Pick<Originals, 'get' | 'names'>;
  loadedModules: string;
  interfacesOf: (family: string) => readonly string[];
}): Promise<string[]> {
  const lines: string[] = [];
  const toLoad = new Set<string>();
  const modules: Modules = {
    ensure: async (name) => {
      if (!existsSync(join(loadedModules, name.replaceAll('-', '_')))) toLoad.add(name);
      return null;
    },
  };
  const applying = profiles.filter((profile) => appliesTo(profile, labels ?? {}));
  const reconciler = makeReconciler({
    sysctls: overlay(sysctls),
    modules,
    originals: copyOf(originals),
    interfacesOf,
    onChange: ({ what, sysctl, from, to }) =>
      lines.push(
        what === 'given-up'
          ? `leave ${sysctl} at ${from}: another program has changed it`
          : `${words[what]} ${sysctl} from ${from} to ${to}`,
      ),
  });
  const { states, left } = await reconciler.pass(applying);
  for (const name of toLoad) lines.unshift(`load the module ${name}, unless it is built in`);
  if (lines.length === 0) lines.push('Nothing would change.');
  lines.push('');
  for (const profile of profiles) {
    const state = states.get(profile.name);
    if (!state)
      lines.push(
        `profile ${profile.name}: ${labels ? 'not for this node' : 'has a nodeSelector, and the labels of this node are not known'}`,
      );
    else lines.push(`profile ${profile.name}: ${state.state === 'ready' ? 'ready' : state.message}`);
  }
  for (const why of left.values()) lines.push(why);
  return lines;
}
