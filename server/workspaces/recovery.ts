import { eq } from 'drizzle-orm';
import type { Database } from '../database/pool.ts';
import { builds } from '../database/schema.ts';
import { endCauses, type Provider, type WorkspaceSpec } from '../providers/provider.ts';
import { noAgent, type Outcome, type Snapshot } from './outcome.ts';

/**
 * Compute that is gone is started again until the weights of its ends add up to more than `max`; an hour of running
 * resets the sum. What ended by itself is likely to do so again: three times are enough. What the platform ended (nodes
 * drained one after another, a machine that restarts) says nothing about the workspace, but a job that deletes it again
 * and again must not keep the cluster busy for ever.
 */
const weights = { workload: 7, platform: 1, max: 21 };
const resetAfterMs = 3600_000;

/** No build is under way and the workspace should run: if its compute is gone, start it again, a few times. */
export function makeRecovery({ database, now }: { database: Database; now: () => Date }) {
  return async function recover(snapshot: Snapshot, provider: Provider): Promise<Outcome | null> {
    const { workspace } = snapshot;
    const seen = await provider.observe(workspace.id, workspace.providerState, await specOf(snapshot));
    if (seen.kind === 'unknown') {
      if (workspace.unseenSince && workspace.reason === seen.message) return null;
      return { workspace: { unseenSince: workspace.unseenSince ?? now(), reason: seen.message } };
    }
    if (seen.kind === 'running') {
      const warning = seen.warning ?? null;
      if (workspace.reason === warning && !workspace.unseenSince) return null;
      return { workspace: { reason: warning, unseenSince: null } };
    }
    const reason = seen.message;
    const isCalm = now().getTime() - workspace.updatedAt.getTime() > resetAfterMs;
    const recoveries = (isCalm ? 0 : workspace.recoveries) + weights[endCauses[seen.cause]];
    if (recoveries > weights.max) {
      const text = `${reason} This happened too often within an hour, so the workspace is not started again automatically.`;
      return { workspace: { status: 'failed', reason: text, ...noAgent } };
    }
    return {
      workspace: { recoveries, reason, ...noAgent },
      request: { workspaceId: workspace.id, transition: 'start', restart: true, reason },
    };
  };

  /** What the workspace was last built as, for the provider to compare with. */
  async function specOf({ workspace, owner }: Snapshot): Promise<WorkspaceSpec | undefined> {
    if (!workspace.agentBuildId) return undefined;
    const [build] = await database.db
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
}
