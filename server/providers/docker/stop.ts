import type Dockerode from 'dockerode';
import type { Removed, StepResult } from '../provider.ts';
import { accept, orNull } from './engine.ts';
import { containerName, networkName } from './names.ts';
import { removeNetworks } from './networks.ts';
import type { DockerParts } from './parts.ts';
import { type State, writeState } from './state.ts';

const pollMs = 200;
const inUseRetryMs = 5_000;

/** One step of removing the container. True once there is none. */
export async function endContainer(
  { background, graceSeconds }: DockerParts,
  container: Dockerode.Container,
  found: Dockerode.ContainerInspectInfo,
): Promise<boolean> {
  const isEnded = !found.State.Running || found.State.Dead;
  if (!isEnded) {
    const stopping = await background.result(`stop ${found.Id}`, () =>
      accept(container.stop({ t: graceSeconds }), 304, 404),
    );
    if (!stopping) return false;
  }
  // Without `v`: named volumes stay in any case, and others are not ours.
  const removal = await background.result(`remove ${found.Id}`, () =>
    accept(container.remove({ force: true }), 404, 409),
  );
  return removal !== null && (await orNull(container.inspect())) === null;
}

/** One step towards no compute. */
export async function stopStep(parts: DockerParts, workspaceId: string, state: State): Promise<StepResult> {
  const container = parts.engine.getContainer(containerName(workspaceId));
  const found = await orNull(container.inspect());
  if (found && !(await endContainer(parts, container, found)))
    return { kind: 'pending', state: writeState(state), retryAfterMs: pollMs };
  // Something else was connected to it, which does not keep the workspace from being stopped.
  if (!(await removeNetworks(parts.engine, networkName(workspaceId))))
    parts.log.debug({ workspace: workspaceId }, 'docker provider: the network is still in use');
  const { container: _, reportedRun: _r, waitingFor: _w, ...kept } = state;
  return { kind: 'done', state: writeState(kept) };
}

/** One step towards nothing but a retained home, or not even that. */
export async function removeStep(
  parts: DockerParts,
  workspaceId: string,
  state: State,
  home: 'keep' | 'discard',
): Promise<StepResult<Removed>> {
  const stopped = await stopStep(parts, workspaceId, state);
  if (stopped.kind !== 'done') return stopped;
  if (state.restoring !== undefined) {
    await parts.homes.giveBack(state.restoring, workspaceId, parts.now());
    return { kind: 'done', state: {}, homeRetained: false };
  }
  if (home === 'discard') {
    if (await parts.homes.discard(workspaceId)) return { kind: 'done', state: {}, homeRetained: false };
    return {
      ...stopped,
      kind: 'pending',
      retryAfterMs: inUseRetryMs,
      message: 'The home cannot be deleted yet: another container uses its volume.',
    };
  }
  const homeRetained = await parts.homes.retain(workspaceId, parts.now());
  return { ...stopped, homeRetained };
}
