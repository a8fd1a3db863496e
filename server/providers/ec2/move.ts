import type { Snapshot, Volume } from '@aws-sdk/client-ec2';
import { ProviderFailure } from '../failure.ts';
import type { StepContext, WorkspaceSpec } from '../provider.ts';
import { accept } from './client.ts';
import { workspaceTags } from './instance.ts';
import { clientToken, tagOf, tags, toTags, withTag } from './names.ts';
import type { Ec2Parts } from './parts.ts';
import { ours } from './surroundings.ts';

/**
 * One step towards a home in another zone: a volume is in one zone for good, so it is copied through a snapshot. The old one
 * is deleted once its copy is complete and has taken its place.
 */
export async function moveHome(
  parts: Ec2Parts,
  spec: WorkspaceSpec,
  home: Volume,
  zone: string,
  context: StepContext,
): Promise<{ home: Volume } | { waitingFor: string }> {
  const { client, homes, installation } = parts;
  const from = home.VolumeId!;
  const waitingFor = `The home is being moved to ${zone}.`;
  const copy = (await homes.list('home-copy')).find((each) => tagOf(each, tags.from) === from);
  if (copy && copy.AvailabilityZone !== zone) {
    // The template has changed its mind.
    await accept(
      client.deleteVolume({ VolumeId: copy.VolumeId }),
      'InvalidVolume.NotFound',
      'IncorrectState',
    );
    return { waitingFor };
  }
  const snapshot = await findSnapshot(parts, from);
  if (copy && (copy.State === 'available' || copy.State === 'in-use')) {
    // From here on, the copy is found instead of the old one, because it names that.
    await client.createTags({
      Resources: [copy.VolumeId!],
      Tags: toTags({
        ...workspaceTags({ installation, spec }, 'home'),
        ...(tagOf(home, tags.used) && { [tags.used]: 'true' }),
        ...(tagOf(home, tags.attached) && { [tags.attached]: 'true' }),
      }),
    });
    await client.createTags({ Resources: [from], Tags: toTags({ [tags.role]: 'old-home' }) });
    await accept(client.deleteVolume({ VolumeId: from }), 'InvalidVolume.NotFound');
    if (snapshot)
      await accept(client.deleteSnapshot({ SnapshotId: snapshot.SnapshotId }), 'InvalidSnapshot.NotFound');
    context.log(`home: moved from ${home.AvailabilityZone} to ${zone}`);
    return { home: { ...copy, Tags: toTags({ [tags.used]: tagOf(home, tags.used) ?? '' }) } };
  }
  if (copy) return { waitingFor };
  if (!snapshot) {
    context.log(`home: moving from ${home.AvailabilityZone} to ${zone} through a snapshot`);
    await client.createSnapshot({
      VolumeId: from,
      Description: `Home of ${spec.owner}/${spec.name} on its way to ${zone}`,
      TagSpecifications: [
        {
          ResourceType: 'snapshot',
          Tags: toTags({ ...workspaceTags({ installation, spec }, 'move'), [tags.from]: from }),
        },
      ],
    });
    return { waitingFor };
  }
  if (snapshot.State === 'error') {
    await accept(client.deleteSnapshot({ SnapshotId: snapshot.SnapshotId }), 'InvalidSnapshot.NotFound');
    throw new ProviderFailure({
      code: 'aws-refused',
      message: `EC2 could not copy the home to ${zone}. It is unchanged.`,
      detail: snapshot.StateMessage ?? '',
      hint: 'Start the workspace again.',
      fault: 'system',
    });
  }
  if (snapshot.State !== 'completed')
    return { waitingFor: `${waitingFor.slice(0, -1)}: ${snapshot.Progress || '0%'}.` };
  const { volumeType, kmsKey } = spec.template.ec2!;
  await client.createVolume({
    AvailabilityZone: zone,
    SnapshotId: snapshot.SnapshotId!,
    Size: home.Size!,
    VolumeType: volumeType,
    Encrypted: true,
    ...(kmsKey !== undefined && { KmsKeyId: kmsKey }),
    ClientToken: clientToken(installation, from, zone, snapshot.SnapshotId!),
    TagSpecifications: [
      {
        ResourceType: 'volume',
        Tags: toTags({ ...workspaceTags({ installation, spec }, 'home-copy'), [tags.from]: from }),
      },
    ],
  });
  return { waitingFor };
}

/** The snapshot of a home on its way. */
async function findSnapshot({ client, installation }: Ec2Parts, from: string): Promise<Snapshot | null> {
  const { Snapshots = [] } = await client.describeSnapshots({
    OwnerIds: ['self'],
    Filters: [...ours(installation, 'move'), withTag(tags.from, from)],
  });
  return Snapshots[0] ?? null;
}
