import type { PurgeResult, PurgeSelection } from '../provider.ts';
import type { Begun, Cloud, Volume, VolumePlan } from './cloud.ts';
import type { Labels, Role } from './labels.ts';

export interface Homes {
  /** The volume of the workspace's home; null: it has none. `hint`: the volume that it was. */
  find(workspaceId: string, hint?: string): Promise<Volume | null>;
  /** All volumes with these roles. */
  list(...roles: Role[]): Promise<Volume[]>;
  create(plan: VolumePlan): Promise<Begun>;
  /** Makes the retained home of `from` that of `to`. False if there is none. */
  restore(from: string, to: { id: string; owner: string; name: string }, hint?: string): Promise<boolean>;
  /** Undoes a restore: the home of `to` is retained as that of `from` again. */
  giveBack(from: string, to: string, now: Date, hint?: string): Promise<void>;
  /** False if the workspace has no home. */
  retain(workspaceId: string, now: Date, hint?: string): Promise<boolean>;
  /** Deletes a home that no machine ever had. False if one had. */
  abandon(volume: Volume): Promise<boolean>;
  /** False while a machine still uses the volume. */
  discard(workspaceId: string, hint?: string): Promise<boolean>;
  purge(selection: PurgeSelection): Promise<PurgeResult>;
  /** Makes the volume the retained home of the workspace. False if there is no such home. */
  adopt(volume: string, workspaceId: string, retainedAt: Date): Promise<boolean>;
}

/** Whether a machine may have written to it. */
export const hasBeenAttached = ({ labels }: Volume): boolean => !!labels.attached || !!labels.used;

const isThere = ({ state }: Volume) => state !== 'deleting';

/**
 * Homes are volumes. Their labels say whose home one is and since when it is retained. Not every cloud can change labels
 * on a condition, so a purge marks a volume first, and looks again whether it still is what it was.
 */
export function makeHomes(cloud: Cloud, installation: string): Homes {
  const list = async (...roles: Role[]) => (await cloud.volumes({ roles })).filter(isThere);
  const isHomeOf = (volume: Volume, workspaceId: string) =>
    isThere(volume) &&
    volume.labels.installation === installation &&
    volume.labels.role === 'home' &&
    volume.labels.workspace === workspaceId;

  async function get(id: string): Promise<Volume | null> {
    const volume = await cloud.volume(id);
    return volume && isThere(volume) ? volume : null;
  }

  async function find(workspaceId: string, hint?: string): Promise<Volume | null> {
    const known = hint === undefined ? null : await get(hint);
    if (known && isHomeOf(known, workspaceId)) return known;
    const found = (await cloud.volumes({ roles: ['home'], workspace: workspaceId })).filter(isThere);
    // A server was killed between two of its changes: the copy takes the place of what it was copied from.
    const copied = new Set(found.map(({ labels }) => labels.from));
    const current = found.filter(({ id }) => !copied.has(id));
    const age = ({ createdAt }: Volume) => createdAt?.getTime() ?? 0;
    const isUsed = ({ labels }: Volume) => (labels.used ? 0 : 1);
    return current.sort((a, b) => isUsed(a) - isUsed(b) || age(a) - age(b))[0] ?? null;
  }

  async function remove(id: string): Promise<boolean> {
    if (!(await cloud.deleteVolume(id))) return false;
    for (const snapshot of await cloud.snapshots({ roles: ['snapshot'], from: id }))
      await cloud.deleteSnapshot(snapshot.id);
    return true;
  }

  async function purgeOne(
    volume: Volume,
    isDue: (volume: Volume) => boolean,
  ): Promise<'purged' | 'changed' | 'in-use'> {
    // From here on nothing takes it over.
    if (!(await cloud.labelVolume(volume, { purging: 'true' }))) return 'changed';
    const now = await get(volume.id);
    if (!now) return 'changed';
    if (!isDue(now)) {
      await cloud.labelVolume(now, { purging: '' });
      return 'changed';
    }
    return (await remove(volume.id)) ? 'purged' : 'in-use';
  }

  return {
    find,
    list,
    create: (plan) =>
      cloud.createVolume({
        ...plan,
        labels: { ...plan.labels, installation, role: 'home' } satisfies Labels,
      }),
    async restore(from, to, hint) {
      if (from !== to.id && (await find(to.id, hint))) return true;
      const home = await find(from, hint);
      if (!home || home.labels.purging) return false;
      if (!home.labels.retainedAt) return from === to.id;
      return cloud.labelVolume(home, { workspace: to.id, owner: to.owner, name: to.name, retainedAt: '' });
    },
    async giveBack(from, to, now, hint) {
      const home = await find(to, hint);
      if (home) await cloud.labelVolume(home, { retainedAt: now.toISOString(), workspace: from });
    },
    async retain(workspaceId, now, hint) {
      const home = await find(workspaceId, hint);
      if (!home) return false;
      if (!home.labels.retainedAt) await cloud.labelVolume(home, { retainedAt: now.toISOString() });
      return true;
    },
    async abandon(volume) {
      // From here on, no step finds it any longer.
      if (!(await cloud.labelVolume(volume, { role: 'old-home' }))) return true;
      const now = await get(volume.id);
      if (!now) return true;
      if (now.attachedTo === null && !hasBeenAttached(now) && (await remove(now.id))) return true;
      await cloud.labelVolume(now, { role: 'home' });
      return false;
    },
    async discard(workspaceId, hint) {
      const home = await find(workspaceId, hint);
      return home === null || (await remove(home.id));
    },
    async purge({ retainedBefore, only, except }) {
      const purged: string[] = [];
      let incomplete = false;
      for (const volume of await list('home')) {
        const workspaceId = volume.labels.workspace!;
        const isDue = (found: Volume) => {
          const since = found.labels.retainedAt;
          return (
            isHomeOf(found, workspaceId) &&
            !!since &&
            (!retainedBefore || Date.parse(since) < retainedBefore.getTime())
          );
        };
        if (only !== undefined && workspaceId !== only) continue;
        if (except?.has(workspaceId) || !isDue(volume)) continue;
        const result = await purgeOne(volume, isDue);
        if (result === 'purged') purged.push(workspaceId);
        if (result === 'in-use') incomplete = true;
      }
      return { purged, incomplete };
    },
    async adopt(volume, workspaceId, retainedAt) {
      const home = await get(volume);
      if (home?.labels.role !== 'home' || home.labels.installation !== installation) return false;
      return cloud.labelVolume(home, {
        workspace: workspaceId,
        retainedAt: retainedAt.toISOString(),
        used: 'true',
      });
    },
  };
}
