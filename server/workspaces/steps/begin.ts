import { advanceStages, startsCompute, transitionStates } from '../statuses.ts';
import { serverLine } from './log-lines.ts';
import type { BuildSnapshot, Outcome } from './outcome.ts';

/** Moves a queued build to its first stage. */
export function begin(at: Date, { workspace, build }: BuildSnapshot): Outcome {
  const { transition } = build;
  const stage = startsCompute(transition) ? 'render' : 'provision';
  return {
    workspace: {
      status: transitionStates[transition].during,
      reason: null,
      ...(transition === 'update' && {
        templateVersionId: build.templateVersionId,
        parameters: build.parameters,
      }),
      ...(build.initiator !== 'system' && { recoveries: 0 }),
    },
    build: { status: 'running', startedAt: at, stages: advanceStages(build.stages, stage, at) },
    lines: [
      serverLine(at, stage, `${transition} of ${workspace.name}${build.reason ? `: ${build.reason}` : ''}`),
    ],
    requeue: 'now',
  };
}
