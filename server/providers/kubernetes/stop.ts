import type { StepContext, StepResult } from '../provider.ts';
import type { KubeObject } from './client.ts';
import type { Connection } from './connections.ts';
import { type State, write } from './state.ts';
import { clearPods, closeQuota, scaleDown } from './workloads.ts';

const lookAgainMs = 2_000;
/** While the watch of pods shows that they still end; it wakes us when they have. */
const endingMs = 5_000;
/** What is scaled to nothing ends its pods by then; what does not was not ours to scale, such as an operator's. */
const obeyMs = 20_000;

/** One move toward no pod in the namespace. */
export async function stopMove(
  { client, view }: Connection,
  before: State,
  context: StepContext,
  now: Date,
): Promise<StepResult> {
  const namespace = before.namespace!;
  const { applied: _a, appliedAt: _t, podUid: _p, restarts: _r, said: _s, awaySince: _w, ...kept } = before;
  const { stoppingSince, ...rest } = kept;
  const there = view.get('Namespace', '', namespace);
  if (!there || there.metadata.deletionTimestamp)
    return { kind: 'done', state: write({ ...rest, scaled: rest.scaled ?? [] }) };

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
  if (stoppingSince && waited < obeyMs && view.list('Pod', namespace).some(isAlive))
    return { kind: 'pending', state: write(state), retryAfterMs: endingMs };
  const { left, alive } = await clearPods(client, namespace, now, context, { all: state.closed ?? false });
  if (left === 0) {
    const { stoppingSince: _, ...stopped } = state;
    return { kind: 'done', state: write(stopped) };
  }
  if (alive.length > 0 && waited > obeyMs && !state.closed) {
    context.log(
      `Pods of ${alive.join(', ')} do not end with the others. They are deleted, and the namespace takes no new ones until the next start.`,
      'warn',
    );
    await closeQuota(client, namespace);
    state.closed = true;
  }
  const message = state.closed && alive.length > 0 ? `Pods of ${alive.join(', ')} have not ended yet.` : '';
  return { kind: 'pending', state: write(state), retryAfterMs: lookAgainMs, ...(message && { message }) };
}

const isAlive = ({ status }: KubeObject) =>
  !['Succeeded', 'Failed'].includes(((status ?? {}) as { phase?: string }).phase ?? '');
