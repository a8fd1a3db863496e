import type { Instance } from '@aws-sdk/client-ec2';
import type { Removed, StepResult } from '../provider.ts';
import { accept } from './client.ts';
import { isGone, isOn, stateOf } from './instances.ts';
import { tagOf, tags, toTags, withTag } from './names.ts';
import type { Ec2Parts } from './parts.ts';
import { type State, writeState } from './state.ts';
import { ours } from './surroundings.ts';

const inUseRetryMs = 5_000;

/**
 * One step of terminating instances. True once they are. What the home was attached with is made sure of: it stays.
 */
export async function terminate(
  { client, view }: Ec2Parts,
  instances: readonly Instance[],
  home: string | undefined,
): Promise<boolean> {
  const left = instances.filter((each) => stateOf(each) !== 'terminated');
  if (left.length === 0) return true;
  for (const instance of left) if (!isGone(instance)) await keepVolumes({ client }, instance, home);
  const InstanceIds = left.filter((each) => !isGone(each)).map(({ InstanceId }) => InstanceId!);
  if (InstanceIds.length > 0) {
    await accept(client.terminateInstances({ InstanceIds }), 'InvalidInstanceID.NotFound');
    view.changed();
  }
  return false;
}

/** Makes sure that an instance does not delete the home at its end, also if someone changed that. */
export async function keepVolumes(
  { client }: Pick<Ec2Parts, 'client'>,
  { InstanceId, BlockDeviceMappings = [] }: Instance,
  home: string | undefined,
): Promise<void> {
  const mapping = BlockDeviceMappings.find(({ Ebs }) => Ebs?.VolumeId === home);
  if (home === undefined || !mapping?.Ebs?.DeleteOnTermination) return;
  await client.modifyInstanceAttribute({
    InstanceId,
    BlockDeviceMappings: [{ DeviceName: mapping.DeviceName, Ebs: { DeleteOnTermination: false } }],
  });
}

/** One step of stopping instances that are kept. True once they are stopped. */
async function halt({ client, view }: Ec2Parts, instances: readonly Instance[]): Promise<boolean> {
  const left = instances.filter((each) => !isGone(each) && stateOf(each) !== 'stopped');
  const InstanceIds = left.filter(isOn).map(({ InstanceId }) => InstanceId!);
  if (InstanceIds.length > 0) {
    await accept(
      client.stopInstances({ InstanceIds }),
      'IncorrectInstanceState',
      'InvalidInstanceID.NotFound',
    );
    view.changed();
  }
  return left.length === 0;
}

/** One step towards no compute. */
export async function stopStep(
  parts: Ec2Parts,
  workspaceId: string,
  state: State,
  onStop = state.onStop,
): Promise<StepResult> {
  const instances = await parts.view.of(workspaceId);
  const isEnded =
    onStop === 'keep' ? await halt(parts, instances) : await terminate(parts, instances, state.home);
  if (!isEnded)
    return {
      kind: 'pending',
      state: writeState(state),
      retryAfterMs: parts.retryMs,
      message: 'The instance is shutting down.',
    };
  // Recorded first, so that a stop takes one snapshot, however often it is repeated.
  if (
    state.snapshots !== undefined &&
    state.home !== undefined &&
    state.run !== undefined &&
    !state.hasSnapshot
  )
    return { kind: 'pending', state: writeState({ ...state, hasSnapshot: true }), retryAfterMs: 0 };
  if (state.hasSnapshot) await snapshotHome(parts, workspaceId, state);
  const { run: _, reportedRun: _r, waitingFor: _w, hasSnapshot: _s, ...kept } = state;
  return { kind: 'done', state: writeState(kept) };
}

/** EC2 makes it in the background. */
async function snapshotHome(
  { client, homes, installation, now }: Ec2Parts,
  workspaceId: string,
  state: State,
) {
  const home = await homes.find(workspaceId, state.home);
  if (!home || state.snapshots === undefined) return;
  const from = home.VolumeId!;
  const find = async () =>
    (
      await client.describeSnapshots({
        OwnerIds: ['self'],
        Filters: [...ours(installation, 'snapshot'), withTag(tags.from, from)],
      })
    ).Snapshots ?? [];
  // Of a step that was repeated: one run of an instance has one snapshot.
  const run = state.run ?? '';
  const existing = await find();
  if (!existing.some((each) => tagOf(each, tags.build) === run))
    await client.createSnapshot({
      VolumeId: from,
      Description: `Home of ${tagOf(home, tags.owner)}/${tagOf(home, tags.name)}, ${now().toISOString()}`,
      TagSpecifications: [
        {
          ResourceType: 'snapshot',
          Tags: toTags({
            Name: `${tagOf(home, tags.owner)}/${tagOf(home, tags.name)} home`,
            [tags.installation]: installation,
            [tags.role]: 'snapshot',
            [tags.workspace]: workspaceId,
            [tags.from]: from,
            [tags.build]: run,
          }),
        },
      ],
    });
  const all = (await find()).sort((a, b) => (b.StartTime?.getTime() ?? 0) - (a.StartTime?.getTime() ?? 0));
  for (const { SnapshotId } of all.slice(state.snapshots))
    await accept(client.deleteSnapshot({ SnapshotId }), /^InvalidSnapshot/);
}

/** One step towards nothing but a retained home, or not even that. */
export async function removeStep(
  parts: Ec2Parts,
  workspaceId: string,
  state: State,
  home: 'keep' | 'discard',
): Promise<StepResult<Removed>> {
  const stopped = await stopStep(parts, workspaceId, { ...state, snapshots: undefined }, 'terminate');
  if (stopped.kind !== 'done') return { ...stopped, state: writeState(state) };
  if (state.restoring !== undefined) {
    await parts.homes.giveBack(state.restoring, workspaceId, parts.now(), state.home);
    return { kind: 'done', state: {}, homeRetained: false };
  }
  if (home === 'discard') {
    if (await parts.homes.discard(workspaceId, state.home))
      return { kind: 'done', state: {}, homeRetained: false };
    return {
      kind: 'pending',
      state: writeState(state),
      retryAfterMs: Math.min(inUseRetryMs, parts.retryMs * 2),
      message: 'The home cannot be deleted yet: an instance uses its volume.',
    };
  }
  const homeRetained = await parts.homes.retain(workspaceId, parts.now(), state.home);
  const { run: _, reportedRun: _r, waitingFor: _w, hasSnapshot: _s, ...kept } = state;
  return { kind: 'done', state: writeState(kept), homeRetained };
}
