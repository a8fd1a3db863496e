import type { Volume as EbsVolume, Snapshot as Ec2Snapshot } from '@aws-sdk/client-ec2';
import type { CloudVolumes, Snapshot, Volume } from '../vm/cloud.ts';
import { digest } from '../vm/labels.ts';
import { accept, codeOf, type Ec2Client, messageOf, orNull } from './client.ts';
import { templateTags } from './instance.ts';
import { labelsOf, ours, tags, tagsFor, withTag } from './names.ts';
import { ec2SectionOf } from './section.ts';

const states: Record<string, Volume['state']> = {
  creating: 'creating',
  error: 'failed',
  deleting: 'deleting',
  deleted: 'deleting',
};

const volumeOf = (volume: EbsVolume): Volume => ({
  id: volume.VolumeId!,
  zone: volume.AvailabilityZone!,
  gibibytes: volume.Size ?? 0,
  state: states[volume.State ?? ''] ?? 'ready',
  attachedTo: volume.Attachments?.find(({ State }) => State !== 'detached')?.InstanceId ?? null,
  createdAt: volume.CreateTime ?? null,
  labels: labelsOf(volume),
});

const snapshotOf = (snapshot: Ec2Snapshot): Snapshot => {
  const { State, StateMessage = '', Progress } = snapshot;
  return {
    id: snapshot.SnapshotId!,
    state: State === 'completed' ? 'ready' : State === 'error' ? 'failed' : 'creating',
    progress: State === 'error' ? StateMessage : Progress || '0%',
    createdAt: snapshot.StartTime ?? null,
    labels: labelsOf(snapshot),
  };
};

/** Homes as EBS volumes, and their snapshots. */
export function makeVolumes(client: Ec2Client, installation: string): CloudVolumes {
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
    async volume(id) {
      const found = (await orNull(client.describeVolumes({ VolumeIds: [id] })))?.Volumes?.[0];
      return found ? volumeOf(found) : null;
    },
    async volumes({ roles, workspace, from }) {
      const found: EbsVolume[] = [];
      let NextToken: string | undefined;
      do {
        const page = await client.describeVolumes({
          Filters: [
            ...ours(installation, ...roles),
            ...(workspace === undefined ? [] : [withTag(tags.workspace, workspace)]),
            ...(from === undefined ? [] : [withTag(tags.from, from)]),
          ],
          MaxResults: 500,
          ...(NextToken !== undefined && { NextToken }),
        });
        found.push(...(page.Volumes ?? []));
        NextToken = page.NextToken;
      } while (NextToken);
      return found.map(volumeOf);
    },
    async createVolume({ spec, key, zone, gibibytes, labels, snapshot }) {
      const section = ec2SectionOf(spec)!;
      const { kmsKey, volumeType } = section;
      await client.createVolume({
        AvailabilityZone: zone,
        Size: gibibytes,
        VolumeType: volumeType,
        Encrypted: true,
        ...(snapshot !== undefined && { SnapshotId: snapshot }),
        ...(kmsKey !== undefined && { KmsKeyId: kmsKey }),
        ClientToken: digest(key),
        TagSpecifications: [{ ResourceType: 'volume', Tags: [...templateTags(section), ...tagsFor(labels)] }],
      });
      return {};
    },
    async labelVolume({ id }, labels) {
      return accept(client.createTags({ Resources: [id], Tags: tagsFor(labels) }), 'InvalidVolume.NotFound');
    },
    deleteVolume: (id) => removed(client.deleteVolume({ VolumeId: id })),
    async growVolume({ id }, gibibytes) {
      try {
        await client.modifyVolume({ VolumeId: id, Size: gibibytes });
        return null;
      } catch (error) {
        // A volume can be changed once in six hours.
        if (!['VolumeModificationRateExceeded', 'IncorrectModificationState'].includes(codeOf(error) ?? ''))
          throw error;
        return messageOf(error);
      }
    },
    async snapshots({ roles, from }) {
      const { Snapshots = [] } = await client.describeSnapshots({
        OwnerIds: ['self'],
        Filters: [...ours(installation, ...roles), ...(from === undefined ? [] : [withTag(tags.from, from)])],
      });
      return Snapshots.map(snapshotOf);
    },
    async createSnapshot({ id }, { description, labels }) {
      await client.createSnapshot({
        VolumeId: id,
        Description: description,
        TagSpecifications: [{ ResourceType: 'snapshot', Tags: tagsFor(labels) }],
      });
      return {};
    },
    deleteSnapshot: (id) => removed(client.deleteSnapshot({ SnapshotId: id })),
  };
}
