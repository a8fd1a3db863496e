import type { Provider } from '../../providers/provider.ts';
import { advanceStages } from '../statuses.ts';
import type { StepDeps } from './deps.ts';
import { fail } from './fail.ts';
import { collectLines, serverLine } from './log-lines.ts';
import { type BuildSnapshot, noAgent, type Outcome } from './outcome.ts';
import { pending } from './pending.ts';

/** Removes everything; the home is retained for a while unless it is to be discarded. */
export async function remove(
  { now, homeGraceMs }: Pick<StepDeps, 'now' | 'homeGraceMs'>,
  snapshot: BuildSnapshot,
  provider: Provider,
): Promise<Outcome> {
  const { workspace, build } = snapshot;
  if (workspace.restoreFrom === workspace.id && workspace.dormantState)
    return removeDormant({ now, homeGraceMs }, snapshot, provider);
  const { context, lines } = collectLines(now, 'provision');
  const result = await provider.remove(
    workspace.id,
    workspace.providerState,
    build.options.home ?? 'keep',
    context,
  );
  if (result.kind === 'failed')
    return fail(now(), snapshot, result.error, lines, { providerState: result.state });
  if (result.kind === 'pending') return pending(result, lines);
  const at = now();
  const until = new Date(at.getTime() + homeGraceMs);
  return {
    workspace: {
      providerState: result.state,
      status: 'deleted',
      reason: null,
      deletedAt: at,
      homeKeptUntil: result.homeRetained ? until : null,
      restoreFrom: null,
      ...noAgent,
    },
    ...(workspace.restoreFrom && { releaseHome: { workspaceId: workspace.restoreFrom, until } }),
    build: { status: 'succeeded', finishedAt: at, stages: advanceStages(build.stages, null, at) },
    lines: [...lines, serverLine(at, 'provision', 'deleted')],
  };
}

/**
 * A dormant workspace has nothing but its retained home, unless a start of it has failed half-way: then what that start made is
 * removed first, which gives the home back.
 */
async function removeDormant(
  { now, homeGraceMs }: Pick<StepDeps, 'now' | 'homeGraceMs'>,
  snapshot: BuildSnapshot,
  provider: Provider,
): Promise<Outcome> {
  const { workspace, build } = snapshot;
  const { context, lines } = collectLines(now, 'provision');
  const result = await provider.remove(workspace.id, workspace.providerState, 'keep', context);
  if (result.kind === 'failed')
    return fail(now(), snapshot, result.error, lines, { providerState: result.state });
  if (result.kind === 'pending') return pending(result, lines);
  const isDiscarded = build.options.home === 'discard';
  if (isDiscarded) {
    const { purged, incomplete } = await provider.purgeHomes({ only: workspace.id });
    if (incomplete && !purged.includes(workspace.id))
      return fail(
        now(),
        snapshot,
        {
          code: 'cluster-away',
          message: 'The home could not be deleted, because its cluster cannot be reached.',
          hint: 'Delete the workspace again once the cluster is reachable.',
          fault: 'system',
        },
        lines,
      );
  }
  const at = now();
  return {
    workspace: {
      providerState: result.homeRetained ? result.state : workspace.dormantState!,
      status: 'deleted',
      reason: null,
      deletedAt: at,
      homeKeptUntil: isDiscarded ? null : new Date(at.getTime() + homeGraceMs),
      restoreFrom: null,
      dormantState: null,
      ...noAgent,
    },
    build: { status: 'succeeded', finishedAt: at, stages: advanceStages(build.stages, null, at) },
    lines: [...lines, serverLine(at, 'provision', 'deleted')],
  };
}
