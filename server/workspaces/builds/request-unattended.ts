import { type ErrorCode, Problem } from '@cde/api/problem.ts';
import type { Build } from '@cde/api/workspaces.ts';
import type { Logger } from '../../log.ts';
import type { BuildRequest } from '../model.ts';
import { type BuildDeps, requestBuild } from './builds.ts';

/** What a workspace answers that has changed since the policy decided about it. The next sweep decides again. */
const expected: readonly ErrorCode[] = [
  'workspace-busy',
  'workspace-not-found',
  'workspace-deleted',
  'build-ended',
];

/**
 * Requests a build for the server itself. Null: there is none. A failure that is not the workspace's state is logged as an
 * error and does not end the caller's loop, because one workspace must not keep a sweep from all others.
 */
export async function requestUnattended(
  deps: BuildDeps & { log: Logger },
  request: BuildRequest,
): Promise<Build | null> {
  const { log } = deps;
  const { workspaceId: workspace, transition } = request;
  try {
    return await requestBuild(deps, 'system', request);
  } catch (error) {
    if (error instanceof Problem && expected.includes(error.code))
      log.info({ workspace, transition, code: error.code }, 'cleanup leaves a workspace to its next sweep');
    else log.error({ err: error, workspace, transition }, 'cleanup could not request a build');
    return null;
  }
}
