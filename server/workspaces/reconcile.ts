import { Problem } from '@cde/api/problem.ts';
import { isUnavailable } from '../database/pool.ts';
import type { Bus } from '../events/bus.ts';
import type { WorkspaceLifecycle } from '../idle/lifecycle.ts';
import type { Logger } from '../log.ts';
import type { Provider } from '../providers/provider.ts';
import { requestBuild } from './builds/builds.ts';
import type { BuildRequest } from './model.ts';
import { enqueueReconcile } from './queue.ts';
import { commitOutcome, loadSnapshot, StaleSnapshot } from './reconcile-store.ts';
import { nextStep } from './statuses.ts';
import type { StepDeps } from './steps/deps.ts';
import { fail } from './steps/fail.ts';
import type { BuildSnapshot, Outcome, Snapshot } from './steps/outcome.ts';
import { runStep } from './steps/run.ts';

export interface ReconcileDeps extends StepDeps {
  bus: Bus;
  log: Logger;
  providers: Map<string, Provider>;
  lifecycle: WorkspaceLifecycle;
}

/** A build whose step keeps failing through a fault of the server fails after this many attempts. */
const maxAttempts = 5;
/** A start takes about six steps. More than this many in a row, without waiting, is a loop. */
const maxSteps = 20;

/**
 * Takes steps for one workspace until there is nothing left to do but wait. Each step compares the desired with the
 * observed state, asks the provider for one operation and commits the outcome. The server can be killed at any point and
 * repeat the step.
 */
export function makeReconcile(deps: ReconcileDeps): (workspaceId: string, attempt: number) => Promise<void> {
  const { database, bus, log, now } = deps;

  async function commit(snapshot: Snapshot, outcome: Outcome): Promise<void> {
    await commitOutcome(database, now(), snapshot, outcome, deps.lifecycle);
    const { workspace, build } = snapshot;
    if (outcome.workspace?.status || outcome.build || (outcome.lines?.length ?? 0) > 0)
      bus.publish({ workspaceId: workspace.id, ...(build && { buildId: build.id }) });
  }

  async function follow(request: BuildRequest): Promise<void> {
    await requestBuild(deps, 'system', request).catch((error) => {
      // A person was faster.
      if (!(error instanceof Problem && error.code === 'workspace-busy')) throw error;
    });
  }

  return async function reconcile(workspaceId, attempt) {
    for (let count = 0; count < maxSteps; count++) {
      const snapshot = await loadSnapshot(database, workspaceId);
      if (!snapshot || snapshot.workspace.status === 'deleted') return;
      const { workspace, build } = snapshot;
      const step = nextStep({ desired: workspace.desired, status: workspace.status, build });
      if (step === 'nothing') return;
      try {
        const outcome = await runStep(deps, step, snapshot, deps.providers.get(workspace.provider));
        if (outcome === null) return;
        await commit(snapshot, outcome);
        if (outcome.followUp) await follow(outcome.followUp);
        if (outcome.requeue !== 'now') return;
      } catch (error) {
        if (error instanceof StaleSnapshot) return enqueueReconcile(database.db, workspaceId);
        if (isUnavailable(error)) throw error;
        log.error({ err: error, workspace: workspaceId, step }, 'a reconcile step failed');
        if (attempt < maxAttempts || !build) throw error;
        await commit(snapshot, failInternally(now(), { ...snapshot, build }, error));
        return;
      }
    }
    await enqueueReconcile(database.db, workspaceId, 1_000);
  };
}

function failInternally(at: Date, snapshot: BuildSnapshot, error: unknown): Outcome {
  return fail(at, snapshot, {
    code: 'internal',
    message: 'Something went wrong on the server.',
    detail: (error as Error).message,
    hint: 'Start the workspace again. If it fails again, contact your administrator.',
    fault: 'system',
  });
}
