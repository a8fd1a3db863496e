import type {
  BuildStage,
  BuildStatus,
  DesiredState,
  Stage,
  Transition,
  WorkspaceStatus,
} from '@cde/api/workspaces.ts';

/**
 * The life cycle of a workspace as pure functions: what a status permits, and what the next step of a build is.
 * docs/statuses.md draws it.
 */

/** The states of a workspace for each transition: desired, while its build runs, and after it. */
export const transitionStates: Record<
  Transition,
  { desired: DesiredState; during: WorkspaceStatus; after: WorkspaceStatus }
> = {
  start: { desired: 'running', during: 'starting', after: 'running' },
  update: { desired: 'running', during: 'starting', after: 'running' },
  stop: { desired: 'stopped', during: 'stopping', after: 'stopped' },
  delete: { desired: 'deleted', during: 'deleting', after: 'deleted' },
};

/** Whether the transition starts compute. Only such builds can be cancelled. */
export const startsCompute = (transition: Transition): boolean =>
  transition === 'start' || transition === 'update';

export const isUnfinished = (status: BuildStatus): boolean => status === 'queued' || status === 'running';

/** Whether an agent may be reachable. It is after a failed startup script, so that the developer can find out why. */
export const canHaveAgent = (status: WorkspaceStatus): boolean =>
  status === 'running' || status === 'starting' || status === 'failed';

/** Any other status change is a bug. A test walks them all. */
export const allowedStatusChanges: Record<WorkspaceStatus, readonly WorkspaceStatus[]> = {
  pending: ['starting', 'stopping', 'deleting', 'stopped', 'failed'],
  starting: ['starting', 'running', 'failed', 'stopped', 'stopping', 'deleting'],
  running: ['starting', 'stopping', 'deleting', 'failed'],
  stopping: ['stopping', 'stopped', 'failed', 'starting', 'deleting'],
  stopped: ['starting', 'stopping', 'deleting'],
  failed: ['starting', 'stopping', 'deleting', 'stopped'],
  deleting: ['deleting', 'deleted', 'failed'],
  deleted: [],
};

export interface BuildView {
  transition: Transition;
  status: BuildStatus;
  cancelRequested: boolean;
  stages: readonly Pick<BuildStage, 'name' | 'status'>[];
}

export interface WorkspaceView {
  desired: DesiredState;
  status: WorkspaceStatus;
  /** The oldest unfinished build. */
  build: BuildView | null;
}

/** One reconcile step. */
export type Step =
  | 'nothing'
  /** No unfinished build: check that the compute still runs. */
  | 'observe'
  | 'begin'
  | 'render'
  | 'provision'
  | 'await-agent'
  | 'await-startup'
  | 'finish'
  | 'stop'
  | 'remove'
  /** Take down what a cancelled start brought up. */
  | 'unwind';

/** The stage that a build is in; null before the first. */
export function currentStage(build: Pick<BuildView, 'stages'>): Stage | null {
  return build.stages.at(-1)?.name ?? null;
}

/** Chooses the next step from the desired and the observed state. */
export function nextStep({ desired, status, build }: WorkspaceView): Step {
  if (!build) return desired === 'running' && status === 'running' ? 'observe' : 'nothing';
  if (build.cancelRequested && startsCompute(build.transition)) return 'unwind';
  if (build.status === 'queued') return 'begin';
  if (build.transition === 'stop') return 'stop';
  if (build.transition === 'delete') return 'remove';
  switch (currentStage(build)) {
    case null:
    case 'queued':
    case 'render':
      return 'render';
    case 'provision':
      return 'provision';
    case 'agent':
      return 'await-agent';
    case 'startup':
      return 'await-startup';
    case 'ready':
      return 'finish';
  }
}

/** Ends the running stage with the status `ended`, and starts `next`. */
export function advanceStages(
  stages: readonly BuildStage[],
  next: Stage | null,
  at: Date,
  ended: 'succeeded' | 'failed' | 'cancelled' = 'succeeded',
): BuildStage[] {
  const moment = at.toISOString();
  const closed = stages.map((stage) =>
    stage.status === 'running' ? { ...stage, status: ended, finishedAt: moment } : stage,
  );
  return next === null
    ? closed
    : [...closed, { name: next, status: 'running', startedAt: moment, finishedAt: null }];
}

export type RequestDecision =
  /** The workspace is, or is about to be, as requested. */
  | { kind: 'already' }
  /** Queue a build. `supersede`: cancel the start in progress. */
  | { kind: 'build'; supersede: boolean }
  | { kind: 'reject'; code: 'workspace-deleted' | 'workspace-busy' };

/**
 * Decides what a request for `transition` leads to. `unfinished`: the workspace's unfinished builds, oldest first.
 * `force`: a restart, or changed parameters.
 */
export function evaluateRequest(
  workspace: { status: WorkspaceStatus; desired: DesiredState },
  unfinished: readonly { transition: Transition; cancelRequested: boolean }[],
  transition: Transition,
  force: boolean,
): RequestDecision {
  if (workspace.status === 'deleted') return { kind: 'reject', code: 'workspace-deleted' };
  const newest = unfinished.at(-1);
  if (workspace.desired === 'deleted' && transition !== 'delete') {
    // A delete in progress is final; after a failed one the workspace can be started again.
    if (newest) return { kind: 'reject', code: 'workspace-deleted' };
  }
  if (newest) {
    if (newest.transition === transition && !newest.cancelRequested && !force) return { kind: 'already' };
    if (unfinished.length >= 2) return { kind: 'reject', code: 'workspace-busy' };
    return { kind: 'build', supersede: startsCompute(newest.transition) };
  }
  if (transition === 'start' && workspace.status === 'running' && !force) return { kind: 'already' };
  if (transition === 'stop' && workspace.status === 'stopped' && !force) return { kind: 'already' };
  return { kind: 'build', supersede: false };
}
