import { advanceStages } from '../statuses.ts';
import { serverLine } from './log-lines.ts';
import type { BuildSnapshot, Outcome } from './outcome.ts';

/** Ends a start or update: the workspace is ready. */
export function finish(at: Date, { build }: BuildSnapshot): Outcome {
  const seconds = ((at.getTime() - build.createdAt.getTime()) / 1000).toFixed(1);
  return {
    workspace: { status: 'running', reason: null },
    build: { status: 'succeeded', finishedAt: at, stages: advanceStages(build.stages, null, at) },
    lines: [serverLine(at, 'ready', `ready after ${seconds} s`)],
  };
}
