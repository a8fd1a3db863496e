import { eq } from 'drizzle-orm';
import type { Database } from '../../database/pool.ts';
import { workspaces } from '../../database/schema.ts';
import type { Provider, WorkspaceSpec } from '../../providers/provider.ts';
import { advanceStages } from '../statuses.ts';
import type { WorkspaceRow } from '../store.ts';
import type { StepDeps } from './deps.ts';
import { fail } from './fail.ts';
import { collectLines } from './log-lines.ts';
import type { BuildSnapshot, Outcome } from './outcome.ts';
import { pending } from './pending.ts';

/** Asks the provider for compute until it runs. */
export async function provision(
  deps: Pick<StepDeps, 'database' | 'now' | 'agentToken' | 'agentUrl'>,
  snapshot: BuildSnapshot,
  provider: Provider,
): Promise<Outcome> {
  const { workspace, owner, build } = snapshot;
  const { now } = deps;
  const { context, lines } = collectLines(now, 'provision');
  const restore = await findRestore(deps.database, workspace);
  const result = await provider.start(
    {
      workspaceId: workspace.id,
      owner: owner.username,
      name: workspace.name,
      template: build.rendered!,
      ...(restore && { restore }),
    },
    { buildId: build.id, serverUrl: await deps.agentUrl(), token: deps.agentToken(build.id) },
    workspace.providerState,
    context,
  );
  if (result.kind === 'failed')
    return fail(now(), snapshot, result.error, lines, { providerState: result.state });
  if (result.kind === 'pending') return pending(result, lines);
  return {
    workspace: {
      providerState: result.state,
      reason: null,
      isolation: result.isolation ?? null,
      restoreFrom: null,
      dormantState: null,
      ...result.location,
    },
    build: { stages: advanceStages(build.stages, 'agent', now()) },
    lines,
    requeue: 'now',
  };
}

/** The deleted workspace whose home this one takes over, as the provider needs it. */
async function findRestore(
  { db }: Database,
  { id, restoreFrom, dormantState }: WorkspaceRow,
): Promise<WorkspaceSpec['restore']> {
  if (!restoreFrom) return undefined;
  if (restoreFrom === id) return { workspaceId: id, state: dormantState ?? {} };
  const [from] = await db
    .select({ state: workspaces.providerState })
    .from(workspaces)
    .where(eq(workspaces.id, restoreFrom));
  return from && { workspaceId: restoreFrom, state: from.state };
}
