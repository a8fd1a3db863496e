import { isDeepStrictEqual } from 'node:util';
import type { StopCause } from '@cde/api/activity.ts';
import { Problem } from '@cde/api/problem.ts';
import type { TemplateContent } from '@cde/api/template-file.ts';
import type { ParameterValues } from '@cde/api/template-parameters.ts';
import type { Build, Transition } from '@cde/api/workspaces.ts';
import type { Queryable } from '../database/pool.ts';
import type { EndCause } from '../providers/provider.ts';
import { checkParameters } from '../templates/language/parameters.ts';
import { evaluateRequest, isUnfinished, startsCompute } from './statuses.ts';
import type { BuildRow, WorkspaceRow } from './store.ts';

/** The rules for requesting and cancelling builds. No SQL: the callers read and write. */

export interface BuildRequest {
  workspaceId: string;
  transition: Transition;
  reason?: string;
  /** A restart: stop and start even if the workspace runs. */
  restart?: boolean;
  home?: 'keep' | 'discard';
  /** For an update: values that replace the workspace's. */
  parameters?: ParameterValues | undefined;
  /** For an update: build even if nothing would change. */
  force?: boolean | undefined;
  /** For a stop: activity until it begins cancels it. */
  isIdleStop?: boolean;
  /** For a restart because the compute was gone: how it ended. */
  endCause?: EndCause;
  /** For a stop by a policy: which. */
  stopCause?: StopCause;
  /** For a stop: remove everything but the home. */
  makesDormant?: boolean;
  /** For a delete: by cleanup, because no person uses it. */
  isUnused?: boolean;
  /** Called under the workspace's lock before anything changes. It throws if the reason no longer holds. */
  confirm?: (tx: Queryable) => Promise<void>;
  /** The action in the audit log, if it is not the transition. The server's own requests are only audited with one. */
  action?: string;
}

export interface ActiveVersion {
  id: string;
  content: TemplateContent;
  /** The template's name. */
  template: string;
}

export type BuildPlan =
  /** No new build: the workspace is, or will be, as requested. */
  | { kind: 'current'; buildId: string }
  | { kind: 'new'; cancelStarts: boolean; templateVersionId: string; parameters: ParameterValues };

type Workspace = Pick<
  WorkspaceRow,
  'name' | 'status' | 'desired' | 'currentBuildId' | 'templateVersionId' | 'parameters'
> & {
  /** `owner/name`. */
  ref: string;
};

/**
 * Decides what a request for a transition leads to. `unfinished`: the workspace's unfinished builds, oldest first.
 * `active`: its template's active version, which an update needs. Throws a Problem if the request is rejected.
 */
export function planBuild(
  workspace: Workspace,
  unfinished: readonly Pick<BuildRow, 'transition' | 'cancelRequested'>[],
  active: ActiveVersion | null,
  request: BuildRequest,
): BuildPlan {
  const hasNewParameters = Object.keys(request.parameters ?? {}).length > 0;
  const decision = evaluateRequest(
    workspace,
    unfinished,
    request.transition,
    request.restart === true || request.makesDormant === true || hasNewParameters,
  );
  if (decision.kind === 'reject') throw rejection(workspace, decision.code);
  if (decision.kind === 'already') {
    if (workspace.currentBuildId) return { kind: 'current', buildId: workspace.currentBuildId };
    throw new Problem(
      'build-ended',
      `${workspace.name} is ${workspace.status} and was never built, so there is nothing to ${request.transition}.`,
    );
  }
  if (request.transition !== 'update')
    return {
      kind: 'new',
      cancelStarts: decision.supersede,
      templateVersionId: workspace.templateVersionId,
      parameters: workspace.parameters,
    };
  if (!active)
    throw new Problem('template-not-found', 'The template of this workspace has no active version.');
  // The workspace's own values remain unless new ones are given or the new version no longer has the parameter.
  const parameters = resolveParameters(
    active.template,
    active.content.parameters,
    request.parameters ?? {},
    workspace.parameters,
  );
  const isUpToDate =
    active.id === workspace.templateVersionId && isDeepStrictEqual(parameters, workspace.parameters);
  // A failed workspace is built again, because that may repair it.
  const isAtRest =
    unfinished.length === 0 && (workspace.status === 'running' || workspace.status === 'stopped');
  if (isUpToDate && isAtRest && !request.force && workspace.currentBuildId)
    return { kind: 'current', buildId: workspace.currentBuildId };
  return { kind: 'new', cancelStarts: decision.supersede, templateVersionId: active.id, parameters };
}

function rejection({ name, ref }: Workspace, code: 'workspace-deleted' | 'workspace-busy'): Problem {
  if (code === 'workspace-deleted') return new Problem('workspace-deleted', `${name} is being deleted.`);
  return new Problem('workspace-busy', `${name} has a build in progress and another one queued.`, {
    hint: 'Wait until they finish, or cancel one.',
    actions: [{ kind: 'cancel-build', workspace: ref }],
    retryAfter: 2,
  });
}

/** Fills in defaults. Throws `parameters-invalid` with every value that the template does not allow. */
export function resolveParameters(
  template: string,
  declared: Parameters<typeof checkParameters>[0],
  given: ParameterValues,
  previous?: ParameterValues,
): ParameterValues {
  const checked = checkParameters(declared, given, previous === undefined ? {} : { previous });
  if ('issues' in checked)
    throw new Problem(
      'parameters-invalid',
      checked.issues.length === 1
        ? 'A parameter is invalid.'
        : `${checked.issues.length} parameters are invalid.`,
      {
        detail: checked.issues.map((issue) => `${issue.path}: ${issue.message}`).join('; '),
        actions: [{ kind: 'show-template', template }],
        issues: checked.issues,
      },
    );
  return checked.values;
}

/** Throws `build-ended` unless the build is an unfinished start or update: a stop or delete cannot be half done. */
export function assertCancellable(
  build: Pick<Build, 'status' | 'transition'> | null,
): asserts build is NonNullable<typeof build> {
  if (!build || !isUnfinished(build.status))
    throw new Problem('build-ended', 'This build has already ended, so there is nothing to cancel.');
  if (!startsCompute(build.transition))
    throw new Problem('build-ended', `A ${build.transition} cannot be cancelled.`, {
      hint: 'Wait until it finishes, then start the workspace again.',
    });
}
