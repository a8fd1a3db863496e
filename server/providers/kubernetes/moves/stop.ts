import type { StepContext, StepResult } from '../../provider.ts';
import type { KubeObject } from '../api/client.ts';
import type { Connection } from '../api/connections.ts';
import { type State, writeState } from './state.ts';
import { closeQuota, deletePods, scaleDown } from './workloads.ts';

const pollMs = 2_000;
/** While the watch of pods shows that they still end; it wakes us when they have. */
const terminatingPollMs = 5_000;
/** What is scaled to nothing ends its pods by then; what does not was not ours to scale, such as an operator's. */
const scaleDownTimeoutMs = 20_000;

/** One move toward no pod in the namespace. */
export async function stopMove(
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
    // Of an earlier stop, what still is at nothing.
    const isFound = new Set(found.map(({ ref }) => `${ref.kind} ${ref.name}`));
    const earlier = (kept.scaled ?? []).filter(({ ref }) => !isFound.has(`${ref.kind} ${ref.name}`));
    state.scaled = [...earlier, ...found];
  }
  const waited = now.getTime() - Date.parse(state.stoppingSince!);
  // Many workspaces that stop at once are not asked for one by one, as long as it is too early to do anything.
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
      `Pods of ${alive.join(', ')} do not end with the others. They are deleted, and the namespace takes no new ones until the next start.`,
      'warn',
    );
    await closeQuota(client, namespace);
    state.quotaClosed = true;
  }
  const message =
    state.quotaClosed && alive.length > 0 ? `Pods of ${alive.join(', ')} have not ended yet.` : '';
  return { kind: 'pending', state: writeState(state), retryAfterMs: pollMs, ...(message && { message }) };
}

const isAlive = ({ status }: KubeObject) =>
  !['Succeeded', 'Failed'].includes(((status ?? {}) as { phase?: string }).phase ?? '');
