import type { CreateVolumeRequest, Volume } from '@aws-sdk/client-ec2';
import type { PurgeResult, PurgeSelection } from '../provider.ts';
import { accept, codeOf, type Ec2Client, orNull } from './client.ts';
import { type Role, tagOf, tags, toTags, withTag } from './names.ts';
import { ours } from './surroundings.ts';

export interface Homes {
  /** The volume of the workspace's home; null: it has none. `hint`: the volume that it was. */
  find(workspaceId: string, hint?: string): Promise<Volume | null>;
  /** All volumes with these roles. */
  list(...roles: Role[]): Promise<Volume[]>;
  create(wanted: CreateVolumeRequest, own: Record<string, string>): Promise<void>;
  /** Makes the retained home of `from` that of `to`. False if there is none. */
  restore(from: string, to: { id: string; owner: string; name: string }, hint?: string): Promise<boolean>;
  /** Undoes a restore: the home of `to` is retained as that of `from` again. */
  giveBack(from: string, to: string, now: Date, hint?: string): Promise<void>;
  /** False if the workspace has no home. */
  retain(workspaceId: string, now: Date, hint?: string): Promise<boolean>;
  /** Deletes a home that no instance ever had. False if one had. */
  abandon(volume: string): Promise<boolean>;
  /** False while an instance still uses the volume. */
  discard(workspaceId: string, hint?: string): Promise<boolean>;
  purge(selection: PurgeSelection): Promise<PurgeResult>;
  /** Makes the volume the retained home of the workspace. False if there is no such home. */
  adopt(volume: string, workspaceId: string, retainedAt: Date): Promise<boolean>;
}

export const attachedTo = ({ Attachments = [] }: Volume) =>
  Attachments.find(({ State }) => State !== 'detached') ?? null;

/** Whether an instance may have written to it. */
export const hasBeenAttached = (volume: Volume): boolean =>
  tagOf(volume, tags.attached) !== undefined || tagOf(volume, tags.used) !== undefined;

const isThere = ({ State }: Volume) => State !== 'deleting' && State !== 'deleted';

/**
 * Homes are EBS volumes. Tags of a volume say whose home it is and since when it is retained. Tags cannot be changed on a
 * condition, so a purge marks a volume first, and looks again whether it still is what it was.
 */
export function makeHomes(client: Ec2Client, installation: string): Homes {
  async function query(...filters: { Name: string; Values: string[] }[]): Promise<Volume[]> {
    const found: Volume[] = [];
    let NextToken: string | undefined;
    do {
      const page = await client.describeVolumes({
        Filters: filters,
        MaxResults: 500,
        ...(NextToken !== undefined && { NextToken }),
      });
      found.push(...(page.Volumes ?? []));
      NextToken = page.NextToken;
    } while (NextToken);
    return found.filter(isThere);
  }
  const list = (...roles: Role[]) => query(...ours(installation, ...roles));
  const isHomeOf = (volume: Volume, workspaceId: string) =>
    isThere(volume) &&
    tagOf(volume, tags.installation) === installation &&
    tagOf(volume, tags.role) === 'home' &&
    tagOf(volume, tags.workspace) === workspaceId;

  async function get(id: string): Promise<Volume | null> {
    const found = await orNull(client.describeVolumes({ VolumeIds: [id] }));
    const volume = found?.Volumes?.[0];
    return volume && isThere(volume) ? volume : null;
  }

  async function find(workspaceId: string, hint?: string): Promise<Volume | null> {
    const known = hint === undefined ? null : await get(hint);
    if (known && isHomeOf(known, workspaceId)) return known;
    const found = await query(...ours(installation, 'home'), withTag(tags.workspace, workspaceId));
    // A server was killed between two of its changes: the copy takes the place of what it was copied from.
    const copied = new Set(found.map((each) => tagOf(each, tags.from)));
    const current = found.filter(({ VolumeId }) => !copied.has(VolumeId));
    const age = (each: Volume) => each.CreateTime?.getTime() ?? 0;
    const isUsed = (each: Volume) => (tagOf(each, tags.used) === undefined ? 1 : 0);
    return current.sort((a, b) => isUsed(a) - isUsed(b) || age(a) - age(b))[0] ?? null;
  }

  const set = (id: string, values: Record<string, string>) =>
    client.createTags({ Resources: [id], Tags: toTags(values) });

  async function remove(id: string): Promise<boolean> {
    try {
      await accept(client.deleteVolume({ VolumeId: id }), 'InvalidVolume.NotFound');
    } catch (error) {
      if (codeOf(error) === 'VolumeInUse' || codeOf(error) === 'IncorrectState') return false;
      throw error;
    }
    const { Snapshots = [] } = await client.describeSnapshots({
      OwnerIds: ['self'],
      Filters: [...ours(installation, 'snapshot'), withTag(tags.from, id)],
    });
    for (const { SnapshotId } of Snapshots)
      await accept(client.deleteSnapshot({ SnapshotId }), 'InvalidSnapshot.NotFound');
    return true;
  }

  async function purgeOne(
    { VolumeId }: Volume,
    isDue: (volume: Volume) => boolean,
  ): Promise<'purged' | 'changed' | 'in-use'> {
    // From here on nothing takes it over.
    if (!(await accept(set(VolumeId!, { [tags.purging]: 'true' }), 'InvalidVolume.NotFound')))
      return 'changed';
    const now = await get(VolumeId!);
    if (!now) return 'changed';
    if (!isDue(now)) {
      await set(VolumeId!, { [tags.purging]: '' });
      return 'changed';
    }
    return (await remove(VolumeId!)) ? 'purged' : 'in-use';
  }

  return {
    find,
    list,
    async create(wanted, own) {
      await client.createVolume({
        ...wanted,
        TagSpecifications: [
          {
            ResourceType: 'volume',
            Tags: toTags({ ...own, [tags.installation]: installation, [tags.role]: 'home' }),
          },
        ],
      });
    },
    async restore(from, to, hint) {
      if (from !== to.id && (await find(to.id, hint))) return true;
      const home = await find(from, hint);
      if (!home || tagOf(home, tags.purging) !== undefined) return false;
      const isRetained = tagOf(home, tags.retainedAt) !== undefined;
      if (!isRetained) return from === to.id;
      await set(home.VolumeId!, {
        [tags.workspace]: to.id,
        [tags.owner]: to.owner,
        [tags.name]: to.name,
        [tags.retainedAt]: '',
        Name: `${to.owner}/${to.name} home`,
      });
      return true;
    },
    async giveBack(from, to, now, hint) {
      const home = await find(to, hint);
      if (!home) return;
      await set(home.VolumeId!, { [tags.retainedAt]: now.toISOString(), [tags.workspace]: from });
    },
    async retain(workspaceId, now, hint) {
      const home = await find(workspaceId, hint);
      if (!home) return false;
      if (tagOf(home, tags.retainedAt) === undefined)
        await set(home.VolumeId!, { [tags.retainedAt]: now.toISOString() });
      return true;
    },
    async abandon(volume) {
      // From here on, no step finds it any longer.
      await set(volume, { [tags.role]: 'old-home' });
      const now = await get(volume);
      if (!now) return true;
      if (!attachedTo(now) && !hasBeenAttached(now)) {
        if (await remove(volume)) return true;
      }
      await set(volume, { [tags.role]: 'home' });
      return false;
    },
    async discard(workspaceId, hint) {
      const home = await find(workspaceId, hint);
      return home === null || (await remove(home.VolumeId!));
    },
    async purge({ retainedBefore, only, except }) {
      const purged: string[] = [];
      let incomplete = false;
      for (const volume of await list('home')) {
        const workspaceId = tagOf(volume, tags.workspace)!;
        const isDue = (found: Volume) => {
          const since = tagOf(found, tags.retainedAt);
          return (
            isHomeOf(found, workspaceId) &&
            since !== undefined &&
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
      if (!home || tagOf(home, tags.role) !== 'home' || tagOf(home, tags.installation) !== installation)
        return false;
      await set(volume, {
        [tags.workspace]: workspaceId,
        [tags.retainedAt]: retainedAt.toISOString(),
        [tags.used]: 'true',
      });
      return true;
    },
  };
}
