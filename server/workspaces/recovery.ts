import { eq } from 'drizzle-orm';
import type { Database } from '../database/pool.ts';
import { builds } from '../database/schema.ts';
import type { Observation, Provider, WorkspaceSpec } from '../providers/provider.ts';
import { noAgent, type Outcome, type Snapshot } from './outcome.ts';

/**
 * Compute that is gone is started again, until what is counted passes `most`; an hour of running forgets it. What
 * ends by itself does so again, most likely: three times are enough. What was taken away (nodes drained one after
 * the other for an upgrade, a machine that restarts) says nothing of the workspace; but somebody who takes it away
 * again and again, such as a job that cleans up, must not keep the cluster busy for ever.
 */
const counts = { ended: 7, taken: 1, most: 21 };
const resetAfterMs = 3600_000;

type Ended = Extract<Observation, { kind: 'absent' | 'exited' }>;

/** Something was done to it; a reason that is a sentence tells what. */
const wasRemoved = (seen: Ended) => seen.kind === 'absent' || /^[A-Z]/.test(seen.reason);

/** Why compute is gone, as a sentence without its dot. */
export function describeEnd(seen: Ended): string {
  if (seen.kind === 'absent') return seen.reason ?? 'Its processes are gone (the machine may have restarted)';
  return wasRemoved(seen) ? seen.reason : `The agent ended by itself: ${seen.reason}`;
}

/** No build is under way and the workspace should run: if its compute is gone, start it again, a few times. */
export function makeRecovery({ database, now }: { database: Database; now: () => Date }) {
  return async function recover(snapshot: Snapshot, provider: Provider): Promise<Outcome | null> {
    const { workspace } = snapshot;
    const seen = await provider.observe(workspace.id, workspace.providerState, await specOf(snapshot));
    if (seen.kind === 'unknown') {
      if (workspace.unseenSince && workspace.reason === seen.reason) return null;
      return { workspace: { unseenSince: workspace.unseenSince ?? now(), reason: seen.reason } };
    }
    if (seen.kind === 'running') {
      const note = seen.warning ?? null;
      if (workspace.reason === note && !workspace.unseenSince) return null;
      return { workspace: { reason: note, unseenSince: null } };
    }
    const reason = describeEnd(seen);
    const isCalm = now().getTime() - workspace.updatedAt.getTime() > resetAfterMs;
    const recoveries = (isCalm ? 0 : workspace.recoveries) + (wasRemoved(seen) ? counts.taken : counts.ended);
    if (recoveries > counts.most) {
      const text = `${reason}. This has happened too often within an hour: it is not started again by itself.`;
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
