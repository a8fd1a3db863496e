import type { Subnet, Volume } from '@aws-sdk/client-ec2';
import { ProviderFailure } from '../failure.ts';
import type { StepContext, WorkspaceSpec } from '../provider.ts';
import { accept, codeOf, messageOf } from './client.ts';
import { attachedTo, hasBeenAttached } from './homes.ts';
import { gibibytes, workspaceTags } from './instance.ts';
import { moveHome } from './move.ts';
import { clientToken, tagOf, tags, toTags } from './names.ts';
import type { Ec2Parts } from './parts.ts';
import { isWithoutCapacity } from './refusal.ts';
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
    const zone = chooseZone(
      await surroundings.subnets(client, section),
      workspaceId,
      fullZones(state, buildId),
    )!;
    try {
      await homes.create(
        {
          AvailabilityZone: zone,
          Size: spec.template.home.size ? gibibytes(spec.template.home.size) : defaultGibibytes,
          VolumeType: section.volumeType,
          Encrypted: true,
          ...(section.kmsKey !== undefined && { KmsKeyId: section.kmsKey }),
          ClientToken: clientToken(parts.installation, workspaceId, buildId, zone, 'home'),
        },
        workspaceTags({ installation: parts.installation, spec }, 'home'),
      );
    } catch (error) {
      return leaveZone(parts, spec, buildId, state, zone, error, context);
    }
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

export const fullZones = ({ full }: State, buildId: string): string[] =>
  full?.build === buildId ? full.zones : [];

/** Workspaces are spread over the zones. Undefined if all are full. */
function chooseZone(
  subnets: readonly Subnet[],
  workspaceId: string,
  full: readonly string[],
): string | undefined {
  const first = Number.parseInt(clientToken(workspaceId).slice(0, 6), 16) % subnets.length;
  return [...subnets.slice(first), ...subnets.slice(0, first)]
    .map((subnet) => subnet.AvailabilityZone!)
    .find((zone) => !full.includes(zone));
}

/** A home without files can as well be in another zone than the one that has no capacity. Throws the error if there is none. */
export async function leaveZone(
  { client, homes, surroundings }: Ec2Parts,
  spec: WorkspaceSpec,
  buildId: string,
  state: State,
  zone: string,
  error: unknown,
  context: StepContext,
): Promise<{ waitingFor: string; state: State }> {
  if (!isWithoutCapacity(error)) throw error;
  const zones = [...fullZones(state, buildId), zone];
  const next = chooseZone(await surroundings.subnets(client, spec.template.ec2!), spec.workspaceId, zones);
  if (next === undefined) throw error;
  const home = await homes.find(spec.workspaceId, state.home);
  if (home && (spec.restore || hasBeenAttached(home) || !(await homes.abandon(home.VolumeId!)))) throw error;
  context.log(`AWS has no capacity in ${zone} (${codeOf(error)}): trying ${next}`, 'warn');
  const { home: _, ...kept } = state;
  return {
    waitingFor: `The home is being created in ${next}.`,
    state: { ...kept, full: { build: buildId, zones } },
  };
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
export async function attachHome({ client, view }: Ec2Parts, home: Volume, instance: string, device: string) {
  const VolumeId = home.VolumeId!;
  // Before it can be written to, so that it is never taken for one without files.
  if (!hasBeenAttached(home))
    await client.createTags({ Resources: [VolumeId], Tags: toTags({ [tags.attached]: 'true' }) });
  await accept(
    client.attachVolume({ VolumeId, InstanceId: instance, Device: device }),
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
