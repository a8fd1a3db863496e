import type { Provider, ProviderState } from '../../providers/provider.ts';
import type { NewLine } from '../builds/build-log.ts';
import { advanceStages } from '../statuses.ts';
import type { StepDeps } from './deps.ts';
import { fail } from './fail.ts';
import { collectLines, serverLine } from './log-lines.ts';
import { type BuildSnapshot, noAgent, type Outcome } from './outcome.ts';
import { pending } from './pending.ts';

/** Takes down everything but, with `keep`, the home. `outcome`: it waits or has failed. */
export async function takeDown(
  now: () => Date,
  snapshot: BuildSnapshot,
  provider: Provider,
  home: 'keep' | 'discard',
): Promise<{ outcome: Outcome } | { state: ProviderState; homeRetained: boolean; lines: NewLine[] }> {
  const { workspace } = snapshot;
  const { context, lines } = collectLines(now, 'provision');
  const result = await provider.remove(workspace.id, workspace.providerState, home, context);
  if (result.kind === 'failed')
    return { outcome: fail(now(), snapshot, result.error, lines, { providerState: result.state }) };
  if (result.kind === 'pending') return { outcome: pending(result, lines) };
  return { state: result.state, homeRetained: result.homeRetained, lines };
}

/** Removes everything; the home is retained for a while unless it is to be discarded. */
export async function remove(
  { now, homeGraceMs }: Pick<StepDeps, 'now' | 'homeGraceMs'>,
  snapshot: BuildSnapshot,
  provider: Provider,
): Promise<Outcome> {
  const { workspace, build } = snapshot;
  const { dormantState } = workspace;
  const isDiscarded = build.options.home === 'discard';
  // The home of a dormant workspace is retained already. A start that failed half-way is undone first, which gives it back.
  const removed = await takeDown(now, snapshot, provider, isDiscarded && !dormantState ? 'discard' : 'keep');
  if ('outcome' in removed) return removed.outcome;
  const { homeRetained, lines } = removed;
  if (dormantState && isDiscarded) {
    const { purged, incomplete } = await provider.purgeHomes({ only: workspace.id });
    // Its storage is in use for another moment, or cannot be reached.
    if (incomplete && !purged.includes(workspace.id))
      return pending({ kind: 'pending', state: removed.state, retryAfterMs, message: homeInUse }, lines);
  }
  const at = now();
  const until = new Date(at.getTime() + homeGraceMs);
  const isRetained = dormantState ? !isDiscarded : homeRetained;
  return {
    workspace: {
      providerState: dormantState && !homeRetained ? dormantState : removed.state,
      status: 'deleted',
      reason: null,
      deletedAt: at,
      homeKeptUntil: isRetained ? until : null,
      restoreFrom: null,
      dormantState: null,
      ...noAgent,
    },
    ...(workspace.restoreFrom &&
      workspace.restoreFrom !== workspace.id && {
        releaseHome: { workspaceId: workspace.restoreFrom, until },
      }),
    build: { status: 'succeeded', finishedAt: at, stages: advanceStages(build.stages, null, at) },
    lines: [...lines, serverLine(at, 'provision', 'deleted')],
  };
}

const retryAfterMs = 3_000;
const homeInUse = 'The home cannot be deleted yet: its storage is still in use or does not answer.';
