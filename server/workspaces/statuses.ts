import type {
  BuildStage,
  BuildStatus,
  DesiredState,
  Stage,
  Transition,
  WorkspaceStatus,
} from '@cde/api/workspaces.ts';

/**
 * The life of a workspace, as pure functions: what a status permits, and what the next step of a build
 * is. docs/statuses.md draws it. Nothing here knows of databases, providers or clocks.
 */

/** What each transition makes of a workspace: wanted state, status while it runs, status at its end. */
export const transitionStates: Record<
  Transition,
  { desired: DesiredState; during: WorkspaceStatus; after: WorkspaceStatus }
> = {
  start: { desired: 'running', during: 'starting', after: 'running' },
  update: { desired: 'running', during: 'starting', after: 'running' },
  stop: { desired: 'stopped', during: 'stopping', after: 'stopped' },
  delete: { desired: 'deleted', during: 'deleting', after: 'deleted' },
};

/** Transitions that bring compute up, and so can be cancelled on the way. */
export const startsCompute = (transition: Transition): boolean =>
  transition === 'start' || transition === 'update';

export const isUnfinished = (status: BuildStatus): boolean => status === 'queued' || status === 'running';

/** Statuses in which an agent may be reached: also a failed startup script leaves one to look around with. */
export const canHaveAgent = (status: WorkspaceStatus): boolean =>
  status === 'running' || status === 'starting' || status === 'failed';

/** The status changes that may happen; anything else is a bug, and a test walks them all. */
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
  /** The oldest build that has not ended. */
  build: BuildView | null;
}

/** What one reconcile step does. */
export type Step =
  | 'nothing'
  /** No build is open: look whether the compute is still there. */
  | 'observe'
  | 'begin'
  | 'render'
  | 'provision'
  | 'await-agent'
  | 'await-startup'
  | 'finish'
  | 'stop'
  | 'remove'
  /** Take down what a cancelled start has brought up. */
  | 'unwind';

/** The stage that a build is in, or null before its first. */
export function currentStage(build: Pick<BuildView, 'stages'>): Stage | null {
  return build.stages.at(-1)?.name ?? null;
}

/** Decides the next step from what is wanted and what is known. */
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

/** Ends the running stage (as `ended`) and opens `next`, at `at`. */
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
  /** Nothing to do: the workspace is, or is about to be, as asked. */
  | { kind: 'already' }
  /** Open a build; `supersede` cancels the start that is under way. */
  | { kind: 'open'; supersede: boolean }
  | { kind: 'refuse'; code: 'workspace-deleted' | 'workspace-busy' };

/** What a request for `transition` means, given the workspace and its open builds (oldest first). `force`: a restart, or changed parameters. */
export function evaluateRequest(
  workspace: { status: WorkspaceStatus; desired: DesiredState },
  open: readonly { transition: Transition; cancelRequested: boolean }[],
  transition: Transition,
  force: boolean,
): RequestDecision {
  if (workspace.status === 'deleted') return { kind: 'refuse', code: 'workspace-deleted' };
  const newest = open.at(-1);
  if (workspace.desired === 'deleted' && transition !== 'delete') {
    // A delete that failed may be thought over again; one under way may not.
    if (newest) return { kind: 'refuse', code: 'workspace-deleted' };
  }
  if (newest) {
    if (newest.transition === transition && !newest.cancelRequested && !force) return { kind: 'already' };
    if (open.length >= 2) return { kind: 'refuse', code: 'workspace-busy' };
    return { kind: 'open', supersede: startsCompute(newest.transition) };
  }
  if (transition === 'start' && workspace.status === 'running' && !force) return { kind: 'already' };
  if (transition === 'stop' && workspace.status === 'stopped') return { kind: 'already' };
  return { kind: 'open', supersede: false };
}
