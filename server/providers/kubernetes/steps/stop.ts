import type { StepContext, StepResult } from '../../provider.ts';
import type { Connection } from '../api/connections.ts';
import type { Kube } from '../api/models.ts';
import { type State, writeState } from './state.ts';
import { closeQuota, deletePods, scaleDown } from './workloads.ts';

const pollMs = 2_000;
/** While the watch shows pods terminating; it also triggers a step when they are gone. */
const terminatingPollMs = 5_000;
/** Scaled workloads have ended their pods by then. Pods that remain have another controller, such as an operator's. */
const scaleDownTimeoutMs = 20_000;

/** One step toward no pods in the namespace. */
export async function stopStep(
  { client, view }: Connection,
  before: State,
  context: StepContext,
  now: Date,
): Promise<StepResult> {
  const namespace = before.namespace!;
  const {
    appliedBuild: _a,
    appliedAt: _t,
    podUid: _p,
    restarts: _r,
    lastReason: _s,
    unreachableSince: _w,
    ...kept
  } = before;
  const { stoppingSince, ...rest } = kept;
  const there = view.get('Namespace', '', namespace);
  if (!there || there.metadata.deletionTimestamp)
    return { kind: 'done', state: writeState({ ...rest, scaled: rest.scaled ?? [] }) };

  const state: State = { ...kept, stoppingSince: stoppingSince ?? now.toISOString() };
  if (!stoppingSince) {
    const found = await scaleDown(client, namespace);
    // Those that an earlier stop scaled and that are still at zero.
    const isFound = new Set(found.map(({ ref }) => `${ref.kind} ${ref.name}`));
    const earlier = (kept.scaled ?? []).filter(({ ref }) => !isFound.has(`${ref.kind} ${ref.name}`));
    state.scaled = [...earlier, ...found];
  }
  const waited = now.getTime() - Date.parse(state.stoppingSince!);
  // Until it is time to act, use the watch: a call per workspace adds up when many stop at once.
  if (stoppingSince && waited < scaleDownTimeoutMs && view.list('Pod', namespace).some(isAlive))
    return { kind: 'pending', state: writeState(state), retryAfterMs: terminatingPollMs };
  const { left, alive } = await deletePods(client, namespace, now, context, {
    all: state.quotaClosed ?? false,
  });
  if (left === 0) {
    const { stoppingSince: _, ...stopped } = state;
    return { kind: 'done', state: writeState(stopped) };
  }
  if (alive.length > 0 && waited > scaleDownTimeoutMs && !state.quotaClosed) {
    context.log(
      `Pods of ${alive.join(', ')} are still running. They are deleted, and the namespace accepts no new pods until the next start.`,
      'warn',
    );
    await closeQuota(client, namespace);
    state.quotaClosed = true;
  }
  const message =
    state.quotaClosed && alive.length > 0 ? `Waiting for pods of ${alive.join(', ')} to terminate.` : '';
  return { kind: 'pending', state: writeState(state), retryAfterMs: pollMs, ...(message && { message }) };
}

const isAlive = ({ status }: Kube<'Pod'>) => !['Succeeded', 'Failed'].includes(status?.phase ?? '');
