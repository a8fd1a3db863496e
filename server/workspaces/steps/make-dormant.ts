import type { Provider } from '../../providers/provider.ts';
import { advanceStages } from '../statuses.ts';
import { fail } from './fail.ts';
import { collectLines, serverLine } from './log-lines.ts';
import { type BuildSnapshot, noAgent, type Outcome } from './outcome.ts';
import { pending } from './pending.ts';

/**
 * Removes everything but the home of a workspace that nobody uses. Its next start takes the home over as if it were that of a
 * deleted workspace; until then no sweep purges it, because `restoreFrom` claims it.
 */
export async function makeDormant(
  now: () => Date,
  snapshot: BuildSnapshot,
  provider: Provider,
): Promise<Outcome> {
  const { workspace, build } = snapshot;
  const { context, lines } = collectLines(now, 'provision');
  const result = await provider.remove(workspace.id, workspace.providerState, 'keep', context);
  if (result.kind === 'failed')
    return fail(now(), snapshot, result.error, lines, { providerState: result.state });
  if (result.kind === 'pending') return pending(result, lines);
  const at = now();
  return {
    workspace: {
      status: 'stopped',
      reason: 'Dormant: nobody has used it for a long time. Its home is kept, and a start brings it back.',
      isolation: null,
      namespace: null,
      ...noAgent,
      // A workspace that never had a home starts with a new one.
      ...(result.homeRetained && {
        dormantState: result.state,
        providerState: {},
        restoreFrom: workspace.id,
      }),
    },
    build: { status: 'succeeded', finishedAt: at, stages: advanceStages(build.stages, null, at) },
    lines: [...lines, serverLine(at, 'provision', 'dormant: everything but the home was removed')],
  };
}
