import type { PlatformObject, PlatformObjects } from '../provider.ts';
import { accept, codeOf, type Ec2Client } from './client.ts';
import type { Homes } from './homes.ts';
import { type InstanceView, isGone, workspaceOf } from './instances.ts';
import { tagOf, tags, withTag } from './names.ts';
import { ours } from './surroundings.ts';

/** What this installation has on EC2. Its security groups are not listed: all its workspaces use them. */
export function makeObjects({
  client,
  installation,
  homes,
  view,
}: {
  client: () => Promise<Ec2Client>;
  installation: string;
  homes: () => Promise<Homes>;
  view: InstanceView;
}): PlatformObjects {
  async function listSnapshots(isHome: (id: string) => boolean): Promise<PlatformObject[]> {
    const { Snapshots = [] } = await (await client()).describeSnapshots({
      OwnerIds: ['self'],
      Filters: ours(installation, 'snapshot', 'move'),
    });
    // Those of a home are deleted with it.
    return Snapshots.filter((each) => !isHome(tagOf(each, tags.from) ?? '')).map((each) => ({
      kind: 'volume',
      name: each.SnapshotId!,
      workspaceId: tagOf(each, tags.workspace) ?? null,
      createdAt: each.StartTime ?? null,
    }));
  }

  /** False if it is in use. */
  async function removed(call: Promise<unknown>): Promise<boolean> {
    try {
      await accept(call, /NotFound$/);
      return true;
    } catch (error) {
      if (['VolumeInUse', 'IncorrectState', 'InvalidSnapshot.InUse'].includes(codeOf(error) ?? ''))
        return false;
      throw error;
    }
  }

  return {
    async list() {
      const volumes = await (await homes()).list('home', 'home-copy', 'old-home');
      const ids = new Set(volumes.map(({ VolumeId }) => VolumeId));
      const instances = (await view.list(0)).all.filter((each) => !isGone(each));
      return [
        ...instances.map(
          (each): PlatformObject => ({
            kind: 'compute',
            name: each.InstanceId!,
            workspaceId: workspaceOf(each),
            createdAt: each.LaunchTime ?? null,
          }),
        ),
        ...volumes.map((each): PlatformObject => {
          const owner = tagOf(each, tags.owner);
          const workspaceName = tagOf(each, tags.name);
          return {
            kind: tagOf(each, tags.role) === 'home' ? 'home' : 'volume',
            name: each.VolumeId!,
            workspaceId: tagOf(each, tags.workspace) ?? null,
            createdAt: each.CreateTime ?? null,
            ...(owner !== undefined && { owner }),
            ...(workspaceName !== undefined && { workspaceName }),
          };
        }),
        ...(await listSnapshots((id) => ids.has(id))),
      ];
    },
    async remove(object) {
      if (object.kind === 'home') return false;
      const ec2 = await client();
      if (object.kind === 'compute') {
        const found = (await view.list(0)).all.find(({ InstanceId }) => InstanceId === object.name);
        if (!found || isGone(found)) return true;
        if (workspaceOf(found) !== object.workspaceId) return false;
        await accept(ec2.terminateInstances({ InstanceIds: [object.name] }), /NotFound$/);
        view.changed();
        return true;
      }
      if (object.name.startsWith('snap-')) return removed(ec2.deleteSnapshot({ SnapshotId: object.name }));
      const { Volumes = [] } = await ec2.describeVolumes({
        Filters: [
          { Name: 'volume-id', Values: [object.name] },
          ...ours(installation, 'home-copy', 'old-home'),
          ...(object.workspaceId === null ? [] : [withTag(tags.workspace, object.workspaceId)]),
        ],
      });
      if (Volumes.length > 0) return removed(ec2.deleteVolume({ VolumeId: object.name }));
      return !(await (await homes()).list('home')).some(({ VolumeId }) => VolumeId === object.name);
    },
    async adopt(home, workspaceId, retainedAt) {
      return (await (await homes()).adopt(home.name, workspaceId, retainedAt)) ? { home: home.name } : null;
    },
  };
}
