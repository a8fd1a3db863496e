import { Problem } from '@cde/api/problem.ts';
import type { Build } from '@cde/api/workspaces.ts';
import type { Database } from '../../database/pool.ts';
import type { Bus } from '../../events/bus.ts';
import type { Caller, UserActor } from '../../http/actor.ts';
import { type SystemCaller, writeAudit } from '../../identity/audit/audit.ts';
import { recordPersonsUse } from '../../idle/lifecycle.ts';
import { assertCancellable, type BuildRequest, planBuild } from '../model.ts';
import { enqueueReconcile } from '../queue.ts';
import { transitionStates } from '../statuses.ts';
import { activeVersion, lockWorkspace, setDesired, workspaceRef } from '../store.ts';
import {
  type BuildWorkspace,
  cancelUnfinishedStarts,
  insertBuild,
  readBuild,
  requestCancel,
  unfinishedBuilds,
} from './build-store.ts';

export interface BuildDeps {
  database: Database;
  bus: Bus;
  now: () => Date;
}

/** The server acting by a policy. */
const cleanupCaller: SystemCaller = { actor: { kind: 'system' }, requestId: 'cleanup', ip: null };

/** Who requests a build: a user, or the server itself. */
export type Initiator = Caller<UserActor> | 'system';

/**
 * Requests a transition. Returns the build that performs it: a new one, or the unfinished one that already does. A stop
 * or delete cancels a start in progress.
 */
export async function requestBuild(
  { database, bus, now }: BuildDeps,
  initiator: Initiator,
  request: BuildRequest,
): Promise<Build> {
  const buildId = await database.db.transaction(async (tx) => {
    const workspace = await lockWorkspace(tx, request.workspaceId);
    if (!workspace) throw new Problem('workspace-not-found', 'This workspace no longer exists.');
    await request.confirm?.(tx);
    const active =
      request.transition === 'update' ? await activeVersion(tx, { id: workspace.templateId }) : null;
    const plan = planBuild(
      { ...workspace, ref: await workspaceRef(tx, workspace) },
      await unfinishedBuilds(tx, workspace.id),
      active && { ...active.version, template: active.template.name },
      request,
    );
    if (plan.kind === 'current') return plan.buildId;
    // From the request on, since a start can take long or fail.
    if (initiator !== 'system' && transitionStates[request.transition].desired === 'running')
      await recordPersonsUse(tx, workspace.id, { by: initiator.actor.username, at: now().getTime() });
    if (plan.cancelStarts) await cancelUnfinishedStarts(tx, workspace.id);
    const { templateVersionId, parameters } = plan;
    const id = await insertBuild(tx, now(), workspace.id, {
      transition: request.transition,
      templateVersionId,
      parameters,
      options: {
        ...(request.restart && { restart: true }),
        ...(request.home && { home: request.home }),
        ...(request.isIdleStop && { isIdleStop: true }),
        ...(request.endCause && { endCause: request.endCause }),
        ...(request.stopCause && { stopCause: request.stopCause }),
        ...(request.makesDormant && { makesDormant: true }),
        ...(request.isUnused && { isUnused: true }),
      },
      reason: request.reason ?? '',
      initiator: initiator === 'system' ? null : initiator.actor,
    });
    if (initiator !== 'system' || request.action)
      await writeAudit(tx, initiator === 'system' ? cleanupCaller : initiator, {
        action: request.action ?? `workspace.${request.transition}`,
        targetType: 'workspace',
        targetId: workspace.id,
        targetName: workspace.name,
        before: {
          status: workspace.status,
          parameters: workspace.parameters,
          templateVersionId: workspace.templateVersionId,
        },
        after: {
          desired: transitionStates[request.transition].desired,
          parameters,
          templateVersionId,
          buildId: id,
          ...(request.reason && { reason: request.reason }),
        },
      });
    await enqueueReconcile(tx, workspace.id);
    return id;
  });
  bus.publish({ workspaceId: request.workspaceId, buildId });
  return (await readBuild(database.db, buildId))!;
}

/** Cancels a start or update. What it has brought up is taken down again. */
export async function cancelBuild(
  { database, bus, now }: BuildDeps,
  caller: Caller<UserActor>,
  buildId: string,
  workspace: Pick<BuildWorkspace, 'id' | 'name'>,
): Promise<Build> {
  await database.db.transaction(async (tx) => {
    await lockWorkspace(tx, workspace.id);
    const build = await readBuild(tx, buildId);
    assertCancellable(build);
    if (build.cancelRequested) return;
    await requestCancel(tx, buildId);
    const unfinished = await unfinishedBuilds(tx, workspace.id);
    if (unfinished.at(-1)?.id === buildId) await setDesired(tx, now(), workspace.id, 'stopped');
    await writeAudit(tx, caller, {
      action: 'build.cancel',
      targetType: 'build',
      targetId: buildId,
      targetName: `${workspace.name} #${build.number}`,
    });
    await enqueueReconcile(tx, workspace.id);
  });
  bus.publish({ workspaceId: workspace.id, buildId });
  return (await readBuild(database.db, buildId))!;
}
