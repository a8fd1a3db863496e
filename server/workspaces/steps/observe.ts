import { eq } from 'drizzle-orm';
import type { Database } from '../../database/pool.ts';
import { builds } from '../../database/schema.ts';
import { endCauses, type Provider, type WorkspaceSpec } from '../../providers/provider.ts';
import type { StepDeps } from './deps.ts';
import { noAgent, type Outcome, type Snapshot } from './outcome.ts';

/**
 * Compute that is gone is restarted until the weights of its ends add up to more than `max`; an hour of running resets
 * the sum. What ended by itself will likely do so again, so three restarts are enough. What the platform ended (nodes
 * drained one by one, a machine restart) says nothing about the workspace, but a job that deletes it over and over must
 * not keep the cluster busy forever.
 */
const weights = { workload: 7, platform: 1, max: 21 };
const resetAfterMs = 3600_000;

/** Checks compute that should run while no build is unfinished, and restarts it a few times if it is gone. */
export async function observe(
  { database, now }: Pick<StepDeps, 'database' | 'now'>,
  snapshot: Snapshot,
  provider: Provider,
): Promise<Outcome | null> {
  const { workspace } = snapshot;
  const observed = await provider.observe(
    workspace.id,
    workspace.providerState,
    await lastSpec(database, snapshot),
  );
  if (observed.kind === 'unknown') {
    if (workspace.unseenSince && workspace.reason === observed.message) return null;
    return { workspace: { unseenSince: workspace.unseenSince ?? now(), reason: observed.message } };
  }
  if (observed.kind === 'running') {
    const warning = observed.warning ?? null;
    if (workspace.reason === warning && !workspace.unseenSince) return null;
    return { workspace: { reason: warning, unseenSince: null } };
  }
  const reason = observed.message;
  const isReset = now().getTime() - workspace.updatedAt.getTime() > resetAfterMs;
  const recoveries = (isReset ? 0 : workspace.recoveries) + weights[endCauses[observed.cause]];
  if (recoveries > weights.max) {
    const text = `${reason} This happened too often within an hour, so the workspace is not started again automatically.`;
    return { workspace: { status: 'failed', reason: text, ...noAgent } };
  }
  return {
    workspace: { recoveries, reason, ...noAgent },
    followUp: {
      workspaceId: workspace.id,
      transition: 'start',
      restart: true,
      reason,
      endCause: observed.cause,
    },
  };
}

/** What the workspace was last built from, so that the provider can detect drift. */
async function lastSpec(
  { db }: Database,
  { workspace, owner }: Snapshot,
): Promise<WorkspaceSpec | undefined> {
  if (!workspace.agentBuildId) return undefined;
  const [build] = await db
    .select({ rendered: builds.rendered })
    .from(builds)
    .where(eq(builds.id, workspace.agentBuildId));
  if (!build?.rendered) return undefined;
  return {
    workspaceId: workspace.id,
    owner: owner.username,
    name: workspace.name,
    template: build.rendered,
  };
}
