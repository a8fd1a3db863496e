import { isDeepStrictEqual } from 'node:util';
import { Problem } from '@cde/api/problem.ts';
import type { ParameterValues } from '@cde/api/templates.ts';
import type { Build, Transition } from '@cde/api/workspaces.ts';
import { and, eq, inArray, max } from 'drizzle-orm';
import { v7 } from 'uuid';
import type { Database, Queryable } from '../database/pool.ts';
import { isDuplicate } from '../database/pool.ts';
import { builds, templates, templateVersions, users, workspaces } from '../database/schema.ts';
import type { Bus } from '../events/bus.ts';
import type { Caller, UserActor } from '../http/actor.ts';
import { writeAudit } from '../identity/audit.ts';
import { checkParameters } from '../templates/language/parameters.ts';
import { claimHome } from './homes.ts';
import { enqueueReconcile } from './queue.ts';
import { evaluateRequest, isUnfinished, startsCompute, transitionStates } from './statuses.ts';
import { readBuild, unfinishedBuilds, type WorkspaceRow, workspaceRef } from './store.ts';

interface Deps {
  database: Database;
  bus: Bus;
  now: () => Date;
}

/** Who asks for a build: a user's request, or the server itself. */
export type Initiator = Caller<UserActor> | 'system';

export interface BuildRequest {
  workspaceId: string;
  transition: Transition;
  reason?: string;
  /** A restart: go through stop and start even if it runs. */
  restart?: boolean;
  home?: 'keep' | 'discard';
  /** Of an update: values that replace the workspace's. */
  parameters?: ParameterValues | undefined;
  /** Of an update: build it again even if it would change nothing. */
  force?: boolean | undefined;
  /** The audit row's action, where it is not the transition. */
  action?: string;
}

/** The active version of a template, as creating and updating need it. */
export async function activeVersion(db: Queryable, template: { id: string } | { name: string }) {
  const [row] = await db
    .select({ template: templates, version: templateVersions })
    .from(templates)
    .innerJoin(templateVersions, eq(templateVersions.id, templates.activeVersionId))
    .where('id' in template ? eq(templates.id, template.id) : eq(templates.name, template.name));
  return row ?? null;
}

/** Fills in defaults and refuses what the template does not allow. */
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
        ? 'A parameter is not as the template wants it.'
        : `${checked.issues.length} parameters are not as the template wants them.`,
      {
        detail: checked.issues.map((issue) => `${issue.path}: ${issue.message}`).join('; '),
        actions: [{ kind: 'show-template', template }],
        issues: checked.issues,
      },
    );
  return checked.values;
}

/** What a transaction adds when a workspace gets a build; the row of the workspace is locked by the caller. */
async function insertBuild(
  tx: Queryable,
  now: Date,
  workspace: Pick<WorkspaceRow, 'id'>,
  values: {
    transition: Transition;
    templateVersionId: string;
    parameters: ParameterValues;
    options: { restart?: boolean; home?: 'keep' | 'discard' };
    reason: string;
  },
  initiator: Initiator,
): Promise<string> {
  const id = v7();
  const [last] = await tx
    .select({ number: max(builds.number) })
    .from(builds)
    .where(eq(builds.workspaceId, workspace.id));
  await tx.insert(builds).values({
    id,
    workspaceId: workspace.id,
    number: (last?.number ?? 0) + 1,
    ...values,
    status: 'queued',
    stages: [{ name: 'queued', status: 'running', startedAt: now.toISOString(), finishedAt: null }],
    initiatorId: initiator === 'system' ? null : initiator.actor.userId,
    initiator: initiator === 'system' ? 'system' : initiator.actor.username,
    createdAt: now,
  });
  await tx
    .update(workspaces)
    .set({ currentBuildId: id, desired: transitionStates[values.transition].desired, updatedAt: now })
    .where(eq(workspaces.id, workspace.id));
  return id;
}

/**
 * Asks for a transition. Returns the build that brings it: a new one, or the one that is already on the
 * way. A stop or delete cancels a start that is under way.
 */
export async function requestBuild(deps: Deps, initiator: Initiator, request: BuildRequest): Promise<Build> {
  const { database, bus, now } = deps;
  const buildId = await database.db.transaction(async (tx) => {
    const [workspace] = await tx
      .select()
      .from(workspaces)
      .where(eq(workspaces.id, request.workspaceId))
      .for('update');
    if (!workspace) throw new Problem('workspace-not-found', 'This workspace does not exist any more.');
    const open = await unfinishedBuilds(tx, workspace.id);
    const changed = request.parameters !== undefined && Object.keys(request.parameters).length > 0;
    const answer = evaluateRequest(workspace, open, request.transition, request.restart === true || changed);
    if (answer.kind === 'refuse') {
      if (answer.code === 'workspace-deleted')
        throw new Problem('workspace-deleted', `${workspace.name} is being deleted.`);
      throw new Problem('workspace-busy', `${workspace.name} has a build under way and another waiting.`, {
        hint: 'Wait for them, or cancel one.',
        actions: [{ kind: 'cancel-build', workspace: await workspaceRef(tx, workspace) }],
        retryAfter: 2,
      });
    }
    if (answer.kind === 'already' && workspace.currentBuildId) return workspace.currentBuildId;
    if (answer.kind === 'already')
      throw new Problem(
        'build-ended',
        `${workspace.name} is ${workspace.status} and was never built: there is nothing to ${request.transition}.`,
      );
    if (answer.kind === 'open' && answer.supersede)
      await tx
        .update(builds)
        .set({ cancelRequested: true })
        .where(
          and(
            eq(builds.workspaceId, workspace.id),
            inArray(builds.status, ['queued', 'running']),
            inArray(builds.transition, ['start', 'update']),
          ),
        );

    let templateVersionId = workspace.templateVersionId;
    let parameters = workspace.parameters;
    if (request.transition === 'update') {
      const active = await activeVersion(tx, { id: workspace.templateId });
      if (!active)
        throw new Problem('template-not-found', 'The template of this workspace has no active version.');
      templateVersionId = active.version.id;
      // The workspace's own values stand where nothing new is given and the new version still has them.
      parameters = resolveParameters(
        active.template.name,
        active.version.content.parameters,
        request.parameters ?? {},
        workspace.parameters,
      );
      const isUpToDate =
        templateVersionId === workspace.templateVersionId &&
        isDeepStrictEqual(parameters, workspace.parameters);
      // A failed workspace is built again: that may be what repairs it.
      const isAtRest =
        open.length === 0 && (workspace.status === 'running' || workspace.status === 'stopped');
      if (isUpToDate && isAtRest && !request.force && workspace.currentBuildId)
        return workspace.currentBuildId;
    }
    const id = await insertBuild(
      tx,
      now(),
      workspace,
      {
        transition: request.transition,
        templateVersionId,
        parameters,
        options: { ...(request.restart && { restart: true }), ...(request.home && { home: request.home }) },
        reason: request.reason ?? '',
      },
      initiator,
    );
    if (initiator !== 'system')
      await writeAudit(tx, initiator, {
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
        },
      });
    await enqueueReconcile(tx, workspace.id);
    return id;
  });
  bus.publish({ workspaceId: request.workspaceId, buildId });
  return (await readBuild(database.db, buildId))!;
}

export interface NewWorkspace {
  name: string;
  owner?: string | undefined;
  template: string;
  parameters: ParameterValues;
  start: boolean;
  /** A kept home to take over. */
  home?: string | undefined;
}

/** Creates a workspace, and its first build unless it is not to start. Returns its id. */
export async function createWorkspace(
  deps: Deps & { providers: { has(name: string): boolean } },
  caller: Caller<UserActor>,
  authorizeForOwner: (ownerId: string) => void,
  input: NewWorkspace,
): Promise<string> {
  const { database, bus, now } = deps;
  const id = v7();
  try {
    await database.db.transaction(async (tx) => {
      let ownerId = caller.actor.userId;
      if (input.owner !== undefined && input.owner !== 'me' && input.owner !== caller.actor.username) {
        const [owner] = await tx.select({ id: users.id }).from(users).where(eq(users.username, input.owner));
        authorizeForOwner(owner?.id ?? '');
        if (!owner) throw new Problem('user-not-found', `There is no user ${input.owner}.`);
        ownerId = owner.id;
      }
      const active = await activeVersion(tx, { name: input.template });
      if (!active)
        throw new Problem('template-not-found', `There is no template ${input.template}.`, {
          actions: [{ kind: 'list-templates' }],
        });
      const { version, template } = active;
      if (!deps.providers.has(version.content.provider))
        throw new Problem(
          'provider-not-available',
          `The provider ${version.content.provider} is not available on this server.`,
          {
            detail:
              version.content.provider === 'local'
                ? 'The local provider is off unless the server listens on loopback only.'
                : undefined,
            hint:
              version.content.provider === 'local'
                ? 'An administrator can turn it on: CDE_LOCAL_PROVIDER=on (read docs/local-provider.md first).'
                : undefined,
          },
        );
      const parameters = resolveParameters(template.name, version.content.parameters, input.parameters);
      if (input.home !== undefined)
        await claimHome(tx, caller.actor, input.home, { ownerId, provider: version.content.provider });
      await tx.insert(workspaces).values({
        id,
        ownerId,
        restoreFrom: input.home ?? null,
        name: input.name,
        templateId: template.id,
        templateVersionId: version.id,
        parameters,
        provider: version.content.provider,
        desired: input.start ? 'running' : 'stopped',
        status: input.start ? 'pending' : 'stopped',
        createdAt: now(),
        updatedAt: now(),
      });
      if (input.start)
        await insertBuild(
          tx,
          now(),
          { id },
          { transition: 'start', templateVersionId: version.id, parameters, options: {}, reason: 'created' },
          caller,
        );
      await writeAudit(tx, caller, {
        action: 'workspace.create',
        targetType: 'workspace',
        targetId: id,
        targetName: input.name,
        after: { template: template.name, templateVersion: version.number, parameters, ownerId },
      });
      if (input.start) await enqueueReconcile(tx, id);
    });
  } catch (error) {
    if (isDuplicate(error, 'workspaces_owner_name')) {
      const owner = input.owner === undefined || input.owner === 'me' ? caller.actor.username : input.owner;
      throw new Problem('workspace-name-taken', `There is a workspace named ${input.name} already.`, {
        hint: 'Choose another name, or delete the other.',
        actions: [
          {
            kind: 'show-workspace',
            workspace: `${owner}/${input.name}`,
          },
        ],
      });
    }
    throw error;
  }
  bus.publish({ workspaceId: id });
  return id;
}

/** Asks a build to end early. A start is taken down again; a stop or delete cannot be half done. */
export async function cancelBuild(
  deps: Deps,
  caller: Caller<UserActor>,
  buildId: string,
  workspace: Pick<WorkspaceRow, 'id' | 'name'>,
): Promise<Build> {
  const { database, bus, now } = deps;
  await database.db.transaction(async (tx) => {
    await tx
      .select({ id: workspaces.id })
      .from(workspaces)
      .where(eq(workspaces.id, workspace.id))
      .for('update');
    const [build] = await tx.select().from(builds).where(eq(builds.id, buildId));
    if (!build || !isUnfinished(build.status))
      throw new Problem('build-ended', 'This build has ended; there is nothing to cancel.');
    if (!startsCompute(build.transition))
      throw new Problem('build-ended', `A ${build.transition} cannot be cancelled.`, {
        hint: 'It ends by itself; start the workspace again afterwards.',
      });
    if (build.cancelRequested) return;
    await tx.update(builds).set({ cancelRequested: true }).where(eq(builds.id, buildId));
    const open = await unfinishedBuilds(tx, workspace.id);
    if (open.at(-1)?.id === buildId)
      await tx
        .update(workspaces)
        .set({ desired: 'stopped', updatedAt: now() })
        .where(eq(workspaces.id, workspace.id));
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
