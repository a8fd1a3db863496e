import type Dockerode from 'dockerode';
import type { VolumeInspectInfo } from 'dockerode';
import type { PurgeResult, PurgeSelection } from '../provider.ts';
import { accept, orNull, statusOf } from './engine.ts';
import { hasLabels, homeVolume, labels, ownerRecord, retainedRecord, withLabels } from './names.ts';

export interface Homes {
  /** The volume of the workspace's home, whether it exists or not. */
  volumeOf(workspaceId: string): Promise<string>;
  exists(volume: string): Promise<boolean>;
  /** `of`: who to give it to if it is ever an orphan. */
  create(workspaceId: string, of: { owner: string; name: string }): Promise<void>;
  /** Makes the retained home of `from` that of `to`. False if there is none. */
  restore(from: string, to: string): Promise<boolean>;
  /** Undoes a restore: the home of `to`, if it was that of `from`, is retained as that of `from` again. */
  giveBack(from: string, to: string, now: Date): Promise<void>;
  /** False if the workspace has no home. */
  retain(workspaceId: string, now: Date): Promise<boolean>;
  /** False while a container still uses the volume. */
  discard(workspaceId: string): Promise<boolean>;
  purge(selection: PurgeSelection): Promise<PurgeResult>;
  /** Each home with the workspace that it is the home of now, and the records whose home is gone. */
  list(): Promise<{ homes: ListedHome[]; strayRecords: VolumeInspectInfo[] }>;
  /** Makes the volume the home of the workspace, retained since then. False if there is no such volume. */
  adopt(volume: string, workspaceId: string, retainedAt: Date): Promise<boolean>;
}

export interface ListedHome {
  volume: VolumeInspectInfo;
  workspaceId: string;
}

/**
 * Homes are named volumes. A volume cannot be renamed or labelled later, so two kinds of empty volumes keep records: one says
 * which volume is the home of a workspace that took over the home of another, one that a home is retained. Each change is
 * the creation or removal of one volume, in an order in which being killed loses nothing.
 */
export function makeHomes(engine: Dockerode, installation: string): Homes {
  const find = (name: string) => orNull(engine.getVolume(name).inspect());
  const create = (name: string, own: Record<string, string>) =>
    engine.createVolume({ Name: name, Labels: { [labels.installation]: installation, ...own } });
  const remove = (name: string) => accept(engine.getVolume(name).remove(), 404);
  async function list(role: string) {
    const wanted = { [labels.installation]: installation, [labels.role]: role };
    const { Volumes } = await engine.listVolumes({ filters: withLabels(wanted) });
    return (Volumes ?? []).filter(({ Labels }) => hasLabels(Labels, wanted));
  }

  async function volumeOf(workspaceId: string): Promise<string> {
    const record = await find(ownerRecord(workspaceId));
    return record?.Labels?.[labels.home] ?? homeVolume(workspaceId);
  }

  async function isRetained(workspaceId: string) {
    return (await find(retainedRecord(workspaceId))) !== null;
  }

  /** Removes a home unless another workspace has taken it over, and then what is recorded about it. */
  async function removeHome(workspaceId: string): Promise<'removed' | 'taken' | 'in-use'> {
    const volume = await volumeOf(workspaceId);
    const owners = await list('home-owner');
    const isTaken = owners.some(
      (record) => record.Labels[labels.home] === volume && record.Labels[labels.workspace] !== workspaceId,
    );
    if (!isTaken) {
      try {
        await remove(volume);
      } catch (error) {
        if (statusOf(error) === 409) return 'in-use';
        throw error;
      }
    }
    await remove(ownerRecord(workspaceId));
    await remove(retainedRecord(workspaceId));
    return isTaken ? 'taken' : 'removed';
  }

  const recordOwner = (workspaceId: string, volume: string) =>
    create(ownerRecord(workspaceId), {
      [labels.role]: 'home-owner',
      [labels.workspace]: workspaceId,
      [labels.home]: volume,
    });
  const recordRetained = (workspaceId: string, volume: string, now: Date) =>
    create(retainedRecord(workspaceId), {
      [labels.role]: 'retained-home',
      [labels.workspace]: workspaceId,
      [labels.home]: volume,
      [labels.retainedAt]: now.toISOString(),
    });

  return {
    volumeOf,
    async exists(volume) {
      // Docker creates a volume that a container mounts and that does not exist. It has no label of ours.
      return (await find(volume))?.Labels?.[labels.role] === 'home';
    },
    async create(workspaceId, { owner, name }) {
      await create(homeVolume(workspaceId), {
        [labels.role]: 'home',
        [labels.workspace]: workspaceId,
        [labels.owner]: owner,
        [labels.name]: name,
      });
    },
    async restore(from, to) {
      const isMine = from === to;
      if (!isMine && (await find(ownerRecord(to)))) {
        await remove(retainedRecord(from));
        await remove(ownerRecord(from));
        return true;
      }
      const volume = await volumeOf(from);
      if ((await find(volume)) === null) return false;
      if (isMine) {
        await remove(retainedRecord(from));
        return true;
      }
      if (!(await isRetained(from))) return false;
      await recordOwner(to, volume);
      await remove(retainedRecord(from));
      await remove(ownerRecord(from));
      return true;
    },
    async giveBack(from, to, now) {
      const record = await find(ownerRecord(to));
      if (!record) return;
      const volume = record.Labels[labels.home]!;
      if (volume !== homeVolume(from)) await recordOwner(from, volume);
      await recordRetained(from, volume, now);
      await remove(ownerRecord(to));
    },
    async retain(workspaceId, now) {
      if (await isRetained(workspaceId)) return true;
      const volume = await volumeOf(workspaceId);
      if ((await find(volume)) === null) return false;
      await recordRetained(workspaceId, volume, now);
      return true;
    },
    async discard(workspaceId) {
      return (await removeHome(workspaceId)) !== 'in-use';
    },
    async purge({ retainedBefore, only, except }) {
      const purged: string[] = [];
      let incomplete = false;
      for (const { Labels: found } of await list('retained-home')) {
        const workspaceId = found[labels.workspace]!;
        if (only !== undefined && workspaceId !== only) continue;
        if (except?.has(workspaceId)) continue;
        if (retainedBefore && Date.parse(found[labels.retainedAt]!) >= retainedBefore.getTime()) continue;
        const result = await removeHome(workspaceId);
        if (result === 'removed') purged.push(workspaceId);
        if (result === 'in-use') incomplete = true;
      }
      return { purged, incomplete };
    },
    async list() {
      const [volumes, owners, retained] = await Promise.all([
        list('home'),
        list('home-owner'),
        list('retained-home'),
      ]);
      const ownerOf = new Map(owners.map(({ Labels }) => [Labels[labels.home], Labels[labels.workspace]]));
      const names = new Set(volumes.map(({ Name }) => Name));
      return {
        homes: volumes.map((volume) => ({
          volume,
          workspaceId: ownerOf.get(volume.Name) ?? volume.Labels[labels.workspace]!,
        })),
        strayRecords: [...owners, ...retained].filter(({ Labels }) => !names.has(Labels[labels.home]!)),
      };
    },
    async adopt(volume, workspaceId, retainedAt) {
      if ((await find(volume))?.Labels?.[labels.role] !== 'home') return false;
      const others = [...(await list('home-owner')), ...(await list('retained-home'))].filter(
        ({ Labels }) => Labels[labels.home] === volume && Labels[labels.workspace] !== workspaceId,
      );
      if (volume !== homeVolume(workspaceId)) await recordOwner(workspaceId, volume);
      // Its date cannot be changed.
      await remove(retainedRecord(workspaceId));
      await recordRetained(workspaceId, volume, retainedAt);
      for (const { Name } of others) await remove(Name);
      return true;
    },
  };
}
