import type { Removed, StepResult } from '../provider.ts';
import { removeHome } from '../vm/remove-home.ts';
import { accept, IncusError, orNull, path } from './client.ts';
import type { Instance } from './instance.ts';
import { instanceName } from './names.ts';
import { cancel, runningOperations } from './operations.ts';
import type { IncusParts } from './parts.ts';
import { type State, writeState } from './state.ts';

const pollMs = 200;
const inUseRetryMs = 5_000;
/** What systemd needs to end everything else. */
const shutdownSeconds = 15;

/** The instance of a workspace; null: it has none. `project`: where to look first. */
export async function findInstance(
  { client }: Pick<IncusParts, 'client'>,
  workspaceId: string,
  project: string | undefined,
): Promise<Instance | null> {
  const name = instanceName(workspaceId);
  if (project !== undefined) return orNull(client.get<Instance>(path`/1.0/instances/${name}`, { project }));
  const found = await client.get<Instance[]>('/1.0/instances', {
    recursion: '1',
    'all-projects': 'true',
    filter: `name eq ${name}`,
  });
  return found[0] ?? null;
}

/** One step of removing the instance. True once there is none. */
export async function endInstance(parts: IncusParts, instance: Instance): Promise<boolean> {
  const { client, background, graceSeconds } = parts;
  const { name, project } = instance;
  const at = path`/1.0/instances/${name}`;
  const query = { project };
  const ending = await background.result(`end ${project}/${name}`, async () => {
    if (instance.status !== 'Stopped') {
      const stop = (force: boolean) =>
        client.run('PUT', `${at}/state`, {
          query,
          body: { action: 'stop', force, timeout: force ? -1 : graceSeconds + shutdownSeconds },
        });
      try {
        await accept(stop(false), 404, /already stopped|not running/i);
      } catch (error) {
        if (!(error instanceof IncusError)) throw error;
        await accept(stop(true), 404, /already stopped|not running/i);
      }
    }
    try {
      await accept(client.run('DELETE', at, { query }), 404);
      return true;
    } catch (error) {
      if (!(error instanceof IncusError) || [401, 403, 503].includes(error.status)) throw error;
      // It is being created, it just ended by itself, or another replica works on it.
      await cancel(client, await runningOperations(client, 'instances', name));
      return false;
    }
  });
  return ending?.value === true;
}

/** One step towards no compute. */
export async function stopStep(parts: IncusParts, workspaceId: string, state: State): Promise<StepResult> {
  const found = await findInstance(parts, workspaceId, state.home?.project);
  if (found && !(await endInstance(parts, found)))
    return { kind: 'pending', state: writeState(state), retryAfterMs: pollMs };
  const { run: _, reportedRun: _r, waitingFor: _w, ...kept } = state;
  return { kind: 'done', state: writeState(kept) };
}

/** One step towards nothing but a retained home, or not even that. */
export async function removeStep(
  parts: IncusParts,
  workspaceId: string,
  state: State,
  home: 'keep' | 'discard',
): Promise<StepResult<Removed>> {
  const stopped = await stopStep(parts, workspaceId, state);
  if (stopped.kind !== 'done') return stopped;
  return removeHome({
    ...{ homes: parts.homes, workspaceId, state, home, now: parts.now() },
    stopped: stopped.state,
    retryMs: inUseRetryMs,
  });
}
