import type { Build, Workspace, WorkspaceStatus } from '@cde/api/workspaces.ts';

const looks: Record<WorkspaceStatus, [tone: 'good' | 'busy' | 'off' | 'bad', word: string]> = {
  pending: ['busy', 'Pending'],
  starting: ['busy', 'Starting'],
  running: ['good', 'Running'],
  stopping: ['busy', 'Stopping'],
  stopped: ['off', 'Stopped'],
  failed: ['bad', 'Failed'],
  deleting: ['busy', 'Deleting'],
  deleted: ['off', 'Deleted'],
};

/** A workspace's status as a dot and a word, including whether the agent of a running one is disconnected. */
export function Status({ workspace }: { workspace: Workspace }) {
  const [tone, word] = looks[workspace.status];
  if (workspace.status === 'running' && !workspace.agent.connected)
    return <span className="status warn">Running, agent not connected</span>;
  return <span className={`status ${tone}`}>{word}</span>;
}

const buildLooks: Record<Build['status'], [tone: string, word: string]> = {
  queued: ['busy', 'queued'],
  running: ['busy', 'running'],
  succeeded: ['good', 'succeeded'],
  failed: ['bad', 'failed'],
  cancelled: ['off', 'cancelled'],
};

export function BuildStatusMark({ build }: { build: Build }) {
  const [tone, word] = buildLooks[build.status];
  return (
    <span className={`status ${tone}`}>{build.cancelRequested && !ended(build) ? 'cancelling' : word}</span>
  );
}

export function ended(build: Build): boolean {
  return build.finishedAt !== null || !['queued', 'running'].includes(build.status);
}

/** Whether a build is in progress. */
export function busy(workspace: Workspace): boolean {
  return workspace.latestBuild !== null && !ended(workspace.latestBuild);
}

export const buildWords: Record<Build['transition'], string> = {
  start: 'Start',
  stop: 'Stop',
  update: 'Update',
  delete: 'Delete',
};
