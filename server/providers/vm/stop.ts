import type { StepResult } from '../provider.ts';
import { isGone, isOn, type Machine } from './cloud.ts';
import { digest } from './labels.ts';
import type { CloudParts } from './parts.ts';
import { type State, settled, writeState } from './state.ts';

/** One step of deleting machines. True once they are. What the home was attached with is made sure of: it stays. */
export async function terminate(
  { cloud, view }: CloudParts,
  machines: readonly Machine[],
  home: string | undefined,
): Promise<boolean> {
  const left = machines.filter(({ state }) => state !== 'gone');
  if (left.length === 0) return true;
  const begun = left.filter((each) => !isGone(each));
  for (const machine of begun) await keepHome({ cloud }, machine, home);
  if (begun.length > 0) {
    await cloud.terminate(begun);
    view.changed();
  }
  return false;
}

/** Makes sure that a machine does not delete the home at its end, also if someone changed that. */
export async function keepHome(
  { cloud }: Pick<CloudParts, 'cloud'>,
  machine: Machine,
  home: string | undefined,
): Promise<void> {
  const attached = machine.volumes.find(({ id }) => id === home);
  if (home !== undefined && attached?.isDeletedWithMachine) await cloud.keepVolume(machine, attached.device);
}

/** One step of stopping machines that are kept. True once they are stopped. */
async function halt({ cloud, view }: CloudParts, machines: readonly Machine[]): Promise<boolean> {
  const left = machines.filter((each) => !isGone(each) && each.state !== 'stopped');
  if (left.some(isOn)) {
    await cloud.halt(left.filter(isOn));
    view.changed();
  }
  return left.length === 0;
}

/** One step towards no compute. */
export async function stopStep(
  parts: CloudParts,
  workspaceId: string,
  state: State,
  onStop = state.onStop,
): Promise<StepResult> {
  const machines = await parts.view.of(workspaceId);
  const isEnded =
    onStop === 'keep' ? await halt(parts, machines) : await terminate(parts, machines, state.home);
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
  const { run: _, hasSnapshot: _s, ...kept } = settled(state);
  return { kind: 'done', state: writeState(kept) };
}

/** The cloud makes it in the background. */
async function snapshotHome(
  { cloud, homes, installation, now }: CloudParts,
  workspaceId: string,
  state: State,
) {
  const home = await homes.find(workspaceId, state.home);
  if (!home || state.snapshots === undefined) return;
  const { owner, name } = home.labels;
  const from = home.id;
  // Of a step that was repeated: one run of a machine has one snapshot.
  const build = digest(state.run ?? '').slice(0, 16);
  const find = () => cloud.snapshots({ roles: ['snapshot'], from });
  if (!(await find()).some(({ labels }) => labels.build === build))
    await cloud.createSnapshot(home, {
      key: digest(installation, from, build),
      description: `Home of ${owner}/${name}, ${now().toISOString()}`,
      labels: { installation, role: 'snapshot', workspace: workspaceId, owner, name, from, build },
    });
  const all = (await find()).sort((a, b) => (b.createdAt?.getTime() ?? 0) - (a.createdAt?.getTime() ?? 0));
  for (const { id } of all.slice(state.snapshots)) await cloud.deleteSnapshot(id);
}
