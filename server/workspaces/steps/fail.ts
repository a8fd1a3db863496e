import type { ProviderError } from '../../providers/provider.ts';
import type { NewLine } from '../builds/build-log.ts';
import { advanceStages, currentStage } from '../statuses.ts';
import type { WorkspaceRow } from '../store.ts';
import { serverLine } from './log-lines.ts';
import type { BuildSnapshot, Outcome } from './outcome.ts';

/** Fails the build and the workspace with `error`. */
export function fail(
  at: Date,
  { build }: BuildSnapshot,
  error: ProviderError,
  lines: NewLine[] = [],
  workspace: Partial<WorkspaceRow> = {},
): Outcome {
  const stage = currentStage(build) ?? 'queued';
  const text = [error.message, error.detail, error.hint].filter(Boolean).join(' ');
  return {
    workspace: { ...workspace, status: 'failed', reason: error.message },
    build: {
      status: 'failed',
      error: { ...error, stage },
      finishedAt: at,
      stages: advanceStages(build.stages, null, at, 'failed'),
    },
    lines: [...lines, serverLine(at, stage, text, 'error')],
  };
}
