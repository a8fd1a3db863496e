import type { Provider } from '../../providers/provider.ts';
import { advanceStages } from '../statuses.ts';
import { serverLine } from './log-lines.ts';
import { type BuildSnapshot, noAgent, type Outcome } from './outcome.ts';
import { takeDown } from './remove.ts';

/**
 * Removes everything but the home of a stopped workspace. Its next start takes the home over as if it were that of a deleted
 * workspace; until then no sweep purges it, because `restoreFrom` claims it. If it fails, the workspace is stopped as before.
 */
export async function makeDormant(
  now: () => Date,
  snapshot: BuildSnapshot,
  provider: Provider,
): Promise<Outcome> {
  const { workspace, build } = snapshot;
  const removed = await takeDown(now, snapshot, provider, 'keep');
  if ('outcome' in removed) {
    const { outcome } = removed;
    const hasFailed = outcome.workspace?.status === 'failed';
    return hasFailed ? { ...outcome, workspace: { ...outcome.workspace, status: 'stopped' } } : outcome;
  }
  const at = now();
  return {
    workspace: {
      status: 'stopped',
      reason: 'Dormant: no one has used it for a long time. Its home is kept, and a start brings it back.',
      isolation: null,
      namespace: null,
      ...noAgent,
      // A workspace that never had a home starts with a new one.
      ...(removed.homeRetained && {
        dormantState: removed.state,
        providerState: {},
        restoreFrom: workspace.id,
      }),
    },
    build: { status: 'succeeded', finishedAt: at, stages: advanceStages(build.stages, null, at) },
    lines: [...removed.lines, serverLine(at, 'provision', 'dormant: everything but the home was removed')],
  };
}
