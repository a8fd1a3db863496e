import { stat } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import type { PlatformObject, PlatformObjects } from '../provider.ts';
import type { LocalParts } from './parts.ts';

const pollMs = 50;
/** A killed tree is gone within milliseconds; a busy machine takes longer. */
const maxPolls = 100;

/** The run directories and homes in the data directory. */
export function makeObjects({
  homes,
  runs,
  uids,
  watcher,
}: Pick<LocalParts, 'homes' | 'runs' | 'uids' | 'watcher'>): PlatformObjects {
  /** False if it does not end. */
  async function end(workspaceId: string): Promise<boolean> {
    await runs.cancelPending(workspaceId);
    watcher.unwatch(workspaceId);
    for (let polls = 0; polls < maxPolls; polls++) {
      const found = await runs.inspect(workspaceId, {});
      if (found.kind === 'alive') await runs.kill(found.compute);
      else if (await runs.clear(workspaceId, found.kind === 'none' || found.compute.isolation === 'none'))
        return true;
      await delay(pollMs);
    }
    return false;
  }

  return {
    async list() {
      const found: PlatformObject[] = [];
      for (const workspaceId of runs.all()) {
        const about = await stat(runs.folder(workspaceId)).catch(() => null);
        if (about)
          found.push({ kind: 'compute', name: workspaceId, workspaceId, createdAt: about.birthtime });
      }
      for (const { name, workspaceId, createdAt } of await homes.list())
        found.push({ kind: 'home', name, workspaceId, createdAt });
      return found;
    },
    async remove({ kind, name }) {
      if (kind !== 'compute' || !(await end(name))) return false;
      await runs.discard(name);
      if (!(await homes.exists(name))) await uids.release(name);
      return true;
    },
    async adopt(home, workspaceId, retainedAt) {
      return (await homes.adopt(home.name, workspaceId, retainedAt)) ? {} : null;
    },
  };
}
