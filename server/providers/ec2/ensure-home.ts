import type { Volume } from '@aws-sdk/client-ec2';
import { ProviderFailure } from '../failure.ts';
import type { StepContext, WorkspaceSpec } from '../provider.ts';
import { accept, codeOf, messageOf } from './client.ts';
import { attachedTo } from './homes.ts';
import { gibibytes, workspaceTags } from './instance.ts';
import { moveHome } from './move.ts';
import { clientToken, tagOf, tags } from './names.ts';
import type { Ec2Parts } from './parts.ts';
import { readState, type State } from './state.ts';

const defaultGibibytes = 20;

export type HomeStep = { home: Volume; state: State } | { waitingFor: string; state: State };

/** One step towards the home: that of the workspace, restored, or a new one. A home that existed is never replaced. */
export async function ensureHome(
  parts: Ec2Parts,
  spec: WorkspaceSpec,
  buildId: string,
  state: State,
  context: StepContext,
): Promise<HomeStep> {
  const { client, homes, surroundings } = parts;
  const { workspaceId, owner, name, restore } = spec;
  const section = spec.template.ec2!;
  const hint = state.home ?? (restore && readState(restore.state).home);
  if (restore && !(await homes.restore(restore.workspaceId, { id: workspaceId, owner, name }, hint)))
    throw homeLost();
  const home = await homes.find(workspaceId, hint);
  if (!home) {
    if (restore || (state.home !== undefined && !state.isUnused)) throw homeLost();
    const subnets = await surroundings.subnets(client, section);
    // Workspaces are spread over the zones.
    const subnet = subnets[Number.parseInt(clientToken(workspaceId).slice(0, 6), 16) % subnets.length]!;
    const zone = subnet.AvailabilityZone!;
    await homes.create(
      {
        AvailabilityZone: zone,
        Size: spec.template.home.size ? gibibytes(spec.template.home.size) : defaultGibibytes,
        VolumeType: section.volumeType,
        Encrypted: true,
        ...(section.kmsKey !== undefined && { KmsKeyId: section.kmsKey }),
        ClientToken: clientToken(parts.installation, workspaceId, buildId, 'home'),
      },
      workspaceTags({ installation: parts.installation, spec }, 'home'),
    );
    const created = await homes.find(workspaceId);
    if (created) context.log(`home: volume ${created.VolumeId} created in ${zone}`);
    return {
      waitingFor: 'The volume of the home is being created.',
      state: { ...state, ...(created && { home: created.VolumeId! }), isUnused: true },
    };
  }
  const known: State = { ...state, home: home.VolumeId!, isUnused: tagOf(home, tags.used) === undefined };
  if (home.State === 'creating')
    return { waitingFor: 'The volume of the home is being created.', state: known };
  if (home.State === 'error')
    throw new ProviderFailure({
      code: 'home-not-usable',
      message: `EC2 says that the volume of the home, ${home.VolumeId}, has an error.`,
      hint: 'Restore it from a snapshot: docs/ec2-provider.md.',
      fault: 'system',
    });
  if (attachedTo(home) === null) {
    const zones = (await surroundings.subnets(client, section)).map((subnet) => subnet.AvailabilityZone!);
    if (!zones.includes(home.AvailabilityZone!)) {
      const moved = await moveHome(parts, spec, home, zones[0]!, context);
      return 'home' in moved
        ? { home: moved.home, state: { ...known, home: moved.home.VolumeId! } }
        : { ...moved, state: known };
    }
    await growHome(parts, spec, home, context);
  }
  return { home, state: known };
}

/** A home never gets smaller. The machine enlarges the file system. */
async function growHome(
  { client }: Ec2Parts,
  spec: WorkspaceSpec,
  { VolumeId, Size = 0 }: Volume,
  context: StepContext,
): Promise<void> {
  const { size } = spec.template.home;
  const wanted = size ? gibibytes(size) : 0;
  if (wanted <= Size) return;
  try {
    await client.modifyVolume({ VolumeId, Size: wanted });
    context.log(`home: enlarged from ${Size} to ${wanted} GiB`);
  } catch (error) {
    // A volume can be changed once in six hours.
    if (!['VolumeModificationRateExceeded', 'IncorrectModificationState'].includes(codeOf(error) ?? ''))
      throw error;
    context.log(`home: not enlarged to ${wanted} GiB now: ${messageOf(error)}`, 'warn');
  }
}

/** Attaches the home to a running instance. */
export async function attachHome({ client, view }: Ec2Parts, home: string, instance: string, device: string) {
  await accept(
    client.attachVolume({ VolumeId: home, InstanceId: instance, Device: device }),
    // It is being attached, or the instance does not quite run yet.
    'VolumeInUse',
    'IncorrectState',
    'IncorrectInstanceState',
    'InvalidParameterValue',
  );
  view.changed();
}

const homeLost = () =>
  new ProviderFailure({
    code: 'home-lost',
    message: 'The volume of the home no longer exists on EC2.',
    detail: 'No empty home is put in its place.',
    hint: 'Restore it from a snapshot with the same tags (docs/ec2-provider.md), or delete this workspace.',
    fault: 'system',
  });
