import { isDeepStrictEqual } from 'node:util';
import { and, eq } from 'drizzle-orm';
import type { Database } from '../database/pool.ts';
import { builds, users, workspaces } from '../database/schema.ts';
import type { WorkspaceLifecycle } from '../idle/lifecycle.ts';
import { appendLog } from './builds/build-log.ts';
import { unfinishedBuilds } from './builds/build-store.ts';
import { enqueueReconcile } from './queue.ts';
import { allowedStatusChanges } from './statuses.ts';
import type { Outcome, Snapshot } from './steps/outcome.ts';
import type { WorkspaceRow } from './store.ts';

/** Another replica has committed a step since the snapshot was read. */
export class StaleSnapshot extends Error {}

export async function loadSnapshot({ db }: Database, workspaceId: string): Promise<Snapshot | null> {
  const [found] = await db
    .select({
      workspace: workspaces,
      owner: { username: users.username, name: users.name, email: users.email },
    })
    .from(workspaces)
    .innerJoin(users, eq(users.id, workspaces.ownerId))
    .where(eq(workspaces.id, workspaceId));
  if (!found) return null;
  const unfinished = await unfinishedBuilds(db, workspaceId);
  return { ...found, build: unfinished[0] ?? null };
}

/** Writes an outcome and enqueues the next step, in one transaction. Throws StaleSnapshot. */
export async function commitOutcome(
  { db }: Database,
  now: Date,
  { workspace, build }: Snapshot,
  outcome: Outcome,
  lifecycle: WorkspaceLifecycle,
): Promise<void> {
  const status = outcome.workspace?.status;
  if (
    status !== undefined &&
    status !== workspace.status &&
    !allowedStatusChanges[workspace.status].includes(status)
  )
    throw new Error(`a workspace cannot go from ${workspace.status} to ${status}`);
  // Most steps find nothing new while a pod comes up. They cost one statement.
  if (typeof outcome.requeue === 'number' && changesNothing(workspace, outcome))
    return enqueueReconcile(db, workspace.id, outcome.requeue);
  await db.transaction(async (tx) => {
    const rows = await tx
      .update(workspaces)
      .set({ ...outcome.workspace, revision: workspace.revision + 1, updatedAt: now })
      .where(and(eq(workspaces.id, workspace.id), eq(workspaces.revision, workspace.revision)))
      .returning({ id: workspaces.id });
    if (rows.length === 0) throw new StaleSnapshot();
    if (build && outcome.build) await tx.update(builds).set(outcome.build).where(eq(builds.id, build.id));
    if (outcome.releaseHome)
      await tx
        .update(workspaces)
        .set({ homeKeptUntil: outcome.releaseHome.until })
        .where(eq(workspaces.id, outcome.releaseHome.workspaceId));
    if (build && status === 'running' && outcome.build)
      await lifecycle.onStarted(tx, workspace.id, { by: build.initiator, reason: build.reason });
    if (build?.options.makesDormant) {
      if (outcome.build?.status === 'succeeded') await lifecycle.onDormant(tx, workspace.id, build.reason);
    } else if (build && status === 'stopped')
      await lifecycle.onStopped(tx, workspace.id, {
        by: build.initiator,
        reason: build.transition === 'stop' ? build.reason : '',
        cause: build.options.stopCause,
      });
    if (build && outcome.lines) await appendLog(tx, build.id, outcome.lines);
    if (typeof outcome.requeue === 'number') await enqueueReconcile(tx, workspace.id, outcome.requeue);
    // The build has ended, and the next one may be queued behind it.
    else if (outcome.build?.finishedAt) await enqueueReconcile(tx, workspace.id);
  });
}

function changesNothing(workspace: WorkspaceRow, outcome: Outcome): boolean {
  if (outcome.build || outcome.releaseHome || (outcome.lines?.length ?? 0) > 0) return false;
  return Object.entries(outcome.workspace ?? {}).every(([key, value]) =>
    isDeepStrictEqual(value, workspace[key as keyof WorkspaceRow]),
  );
}
