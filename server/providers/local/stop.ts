import type { ProviderState, Removed, StepContext, StepResult } from '../provider.ts';
import { runIdOf } from './exit-reasons.ts';
import { type LocalParts, readState } from './parts.ts';
import type { RunRecord } from './runs.ts';

/** One step of stopping a process tree: asks it to exit, and kills it after the grace period. */
export async function endRun(
  { runs, watcher, stopRequests, graceMs, now }: LocalParts,
  workspaceId: string,
  run: RunRecord,
  state: ProviderState,
  context: StepContext,
): Promise<StepResult<never>> {
  // It does not exit by itself, so no listener is called.
  watcher.unwatch(workspaceId);
  const runId = runIdOf(run);
  const at = now().getTime();
  let request = [readState(state).stopRequest, stopRequests.get(workspaceId)].find(
    (each) => each?.runId === runId,
  );
  if (!request) {
    request = { runId, at };
    const pid = await runs.terminate(run);
    context.log(pid ? `agent asked to stop, pid ${pid}` : 'agent stopped before it started');
  } else if (at - request.at >= graceMs) {
    context.log(
      `the agent did not stop within ${graceMs / 1000} s and is killed with all its processes`,
      'warn',
    );
    await runs.kill(run);
  }
  stopRequests.set(workspaceId, request);
  const elapsedMs = at - request.at;
  return {
    kind: 'pending',
    state: { ...run, stopRequest: request },
    retryAfterMs: elapsedMs < 100 ? 20 : elapsedMs < 1000 ? 100 : 250,
  };
}

export async function stop(
  parts: LocalParts,
  workspaceId: string,
  state: ProviderState,
  context: StepContext,
): Promise<StepResult> {
  const { runs, watcher, stopRequests } = parts;
  await runs.cancelPending(workspaceId);
  const found = await runs.inspect(workspaceId, state);
  if (found.kind === 'alive') return endRun(parts, workspaceId, found.compute, state, context);
  watcher.unwatch(workspaceId);
  const killStrays = found.kind === 'none' || found.compute.isolation === 'none';
  if (!(await runs.clear(workspaceId, killStrays))) return { kind: 'pending', state, retryAfterMs: 20 };
  stopRequests.delete(workspaceId);
  if (found.kind === 'ended') context.log('agent stopped');
  return { kind: 'done', state: {} };
}

export async function remove(
  parts: LocalParts,
  workspaceId: string,
  state: ProviderState,
  home: 'keep' | 'discard',
  context: StepContext,
): Promise<StepResult<Removed>> {
  const { homes, uids, runs, background, now } = parts;
  const stopped = await stop(parts, workspaceId, state, context);
  if (stopped.kind !== 'done') return stopped;
  const { restoring } = readState(state);
  if (restoring !== undefined) {
    await homes.giveBack(restoring, workspaceId, now());
    context.log('the home that was to be restored is retained as before');
  }
  const wasMoved = await homes.retain(workspaceId, home === 'keep' ? 'keep' : 'doom', now());
  // An interrupted removal that had already moved the home has retained it.
  const homeRetained = home === 'keep' && (wasMoved || (await homes.isRetained(workspaceId)));
  if (wasMoved && home === 'keep') context.log('home retained until its grace period ends');
  if (home === 'discard') {
    const isDeleted = await background.result(`delete ${workspaceId}`, async () => {
      await homes.finishDelete(workspaceId);
      return true;
    });
    if (!isDeleted)
      return { kind: 'pending', state: {}, retryAfterMs: 500, message: 'The home is being deleted.' };
    if (wasMoved) context.log('home deleted');
  }
  await runs.discard(workspaceId);
  if (!(await homes.exists(workspaceId))) await uids.release(workspaceId);
  return { kind: 'done', state: {}, homeRetained };
}
