import { isDeepStrictEqual } from 'node:util';
import { and, eq } from 'drizzle-orm';
import { type Database, isUnavailable } from '../database/pool.ts';
import { builds, users, workspaces } from '../database/schema.ts';
import type { Bus } from '../events/bus.ts';
import type { Logger } from '../log.ts';
import type { Provider } from '../providers/provider.ts';
import { appendLog } from './build-log.ts';
import { requestBuild } from './builds.ts';
import type { Outcome, Snapshot } from './outcome.ts';
import { enqueueReconcile } from './queue.ts';
import { allowedStatusChanges, nextStep } from './statuses.ts';
import { makeSteps, type StepDeps } from './steps.ts';
import { unfinishedBuilds, type WorkspaceRow } from './store.ts';

export interface ReconcileDeps extends StepDeps {
  bus: Bus;
  log: Logger;
  providers: Map<string, Provider>;
}

/** A step that keeps failing for a reason of ours gives its build up after this many attempts. */
const maxAttempts = 5;

/** Another replica has taken a step since this one read: what it found is out of date. */
class Stale extends Error {}

async function load(database: Database, workspaceId: string): Promise<Snapshot | null> {
  const [found] = await database.db
    .select({
      workspace: workspaces,
      owner: { username: users.username, name: users.name, email: users.email },
    })
    .from(workspaces)
    .innerJoin(users, eq(users.id, workspaces.ownerId))
    .where(eq(workspaces.id, workspaceId));
  if (!found) return null;
  const open = await unfinishedBuilds(database.db, workspaceId);
  return { ...found, build: open[0] ?? null };
}

/**
 * Takes steps for one workspace until there is nothing to do but wait. Each step compares what is wanted
 * with what is, asks the provider for one move, and records it; it may be killed anywhere and run again.
 */
export function makeReconcile(deps: ReconcileDeps): (workspaceId: string, attempt: number) => Promise<void> {
  const { database, bus, log, now } = deps;
  const { perform, fail } = makeSteps(deps);

  async function commit({ workspace, build }: Snapshot, outcome: Outcome): Promise<void> {
    const to = outcome.workspace?.status;
    if (to !== undefined && to !== workspace.status && !allowedStatusChanges[workspace.status].includes(to))
      throw new Error(`a workspace cannot go from ${workspace.status} to ${to}`);
    // A step that found nothing new, as most do while a pod comes up, is worth one statement.
    const isNew = Object.entries(outcome.workspace ?? {}).some(
      ([key, value]) => !isDeepStrictEqual(value, workspace[key as keyof WorkspaceRow]),
    );
    const says = outcome.build || outcome.giveBack || (outcome.lines?.length ?? 0) > 0;
    if (typeof outcome.again === 'number' && !isNew && !says)
      return enqueueReconcile(database.db, workspace.id, outcome.again);
    await database.db.transaction(async (tx) => {
      const rows = await tx
        .update(workspaces)
        .set({ ...outcome.workspace, revision: workspace.revision + 1, updatedAt: now() })
        .where(and(eq(workspaces.id, workspace.id), eq(workspaces.revision, workspace.revision)))
        .returning({ id: workspaces.id });
      if (rows.length === 0) throw new Stale();
      if (build && outcome.build) await tx.update(builds).set(outcome.build).where(eq(builds.id, build.id));
      if (outcome.giveBack)
        await tx
          .update(workspaces)
          .set({ homeKeptUntil: outcome.giveBack.until })
          .where(eq(workspaces.id, outcome.giveBack.workspaceId));
      if (build && outcome.lines) await appendLog(tx, build.id, outcome.lines);
      if (typeof outcome.again === 'number') await enqueueReconcile(tx, workspace.id, outcome.again);
      // A build has ended: the next one may be waiting behind it.
      else if (outcome.build?.finishedAt) await enqueueReconcile(tx, workspace.id);
    });
    if (outcome.workspace?.status || outcome.build || (outcome.lines?.length ?? 0) > 0)
      bus.publish({ workspaceId: workspace.id, ...(build && { buildId: build.id }) });
  }

  return async function reconcile(workspaceId, attempt) {
    // A start passes about six steps; more than this many without waiting would be a loop.
    for (let step = 0; step < 20; step++) {
      const snapshot = await load(database, workspaceId);
      if (!snapshot || snapshot.workspace.status === 'deleted') return;
      const provider = deps.providers.get(snapshot.workspace.provider);
      const action = nextStep(view(snapshot));
      if (action === 'nothing') return;
      try {
        const outcome = await perform(action, snapshot, provider);
        if (outcome === null) return;
        await commit(snapshot, outcome);
        if (outcome.request) await requestBuild(deps, 'system', outcome.request);
        if (outcome.again !== 'now') return;
      } catch (error) {
        if (error instanceof Stale) return enqueueReconcile(database.db, workspaceId);
        if (isUnavailable(error)) throw error;
        log.error({ err: error, workspace: workspaceId, action }, 'a reconcile step failed');
        if (attempt < maxAttempts || !snapshot.build) throw error;
        await commit(
          snapshot,
          fail(snapshot, {
            code: 'internal',
            message: 'Something went wrong on the server.',
            detail: (error as Error).message,
            hint: 'Start it again; if it stays, tell your administrator.',
            fault: 'system',
          }),
        );
        return;
      }
    }
    await enqueueReconcile(database.db, workspaceId, 1_000);
  };

  function view({ workspace, build }: Snapshot) {
    return { desired: workspace.desired, status: workspace.status, build };
  }
}
