import { Problem } from '@cde/api/problem.ts';
import type { ParameterValues } from '@cde/api/template-parameters.ts';
import type { Build, Transition } from '@cde/api/workspaces.ts';
import { and, eq, inArray, max, sql } from 'drizzle-orm';
import { v7 } from 'uuid';
import type { Queryable } from '../../database/pool.ts';
import { type BuildOptions, builds, workspaces } from '../../database/schema.ts';
import type { UserActor } from '../../http/actor.ts';
import { authorize, isAllowed } from '../../identity/auth/authorize.ts';
import { transitionStates } from '../statuses.ts';
import type { BuildRow } from '../store.ts';
import { type BuildColumns, buildColumns, toBuild } from './build-row.ts';

export interface BuildWorkspace {
  id: string;
  name: string;
  ownerId: string;
}

const selectBuild = sql.raw(`
  SELECT ${buildColumns}, w.id AS workspace_id, w.name AS workspace_name, w.owner_id
    FROM builds b
    JOIN template_versions bv ON bv.id = b.template_version_id
    JOIN workspaces w ON w.id = b.workspace_id`);

type Row = BuildColumns & Record<'workspace_id' | 'workspace_name' | 'owner_id', string>;

/** One build as the API shows it, with its workspace. */
export async function readBuildWithWorkspace(
  db: Queryable,
  id: string,
): Promise<{ build: Build; workspace: BuildWorkspace } | null> {
  const { rows } = await db.execute<Row & Record<string, unknown>>(sql`${selectBuild} WHERE b.id = ${id}`);
  const row = rows[0];
  return row
    ? {
        build: toBuild(row, row.workspace_id),
        workspace: { id: row.workspace_id, name: row.workspace_name, ownerId: row.owner_id },
      }
    : null;
}

export async function readBuild(db: Queryable, id: string): Promise<Build | null> {
  return (await readBuildWithWorkspace(db, id))?.build ?? null;
}

/** Finds a build that the actor can read, and authorizes `permission`. Throws `build-not-found`. */
export async function findBuild(
  db: Queryable,
  actor: UserActor,
  id: string,
  permission: 'workspace:read' | 'workspace:operate',
): Promise<{ build: Build; workspace: BuildWorkspace }> {
  const found = await readBuildWithWorkspace(db, id);
  if (!found || !isAllowed(actor, 'workspace:read', found.workspace))
    throw new Problem('build-not-found', `There is no build ${id}, or you cannot see it.`);
  authorize(actor, permission, found.workspace);
  return found;
}

/** A page of a workspace's builds, newest first. `after` is a build number. */
export async function listBuilds(
  db: Queryable,
  workspaceId: string,
  limit: number,
  after: string | undefined,
): Promise<{ items: Build[]; next: string | null }> {
  const before = after === undefined ? null : Number(after);
  if (before !== null && !Number.isSafeInteger(before))
    throw new Problem('bad-request', 'This `after` is not from a page of builds.');
  const { rows } = await db.execute<Row & Record<string, unknown>>(sql`
    ${selectBuild}
     WHERE b.workspace_id = ${workspaceId} AND (${before}::bigint IS NULL OR b.number < ${before}::bigint)
     ORDER BY b.number DESC
     LIMIT ${limit + 1}`);
  const items = rows.slice(0, limit).map((row) => toBuild(row, workspaceId));
  return { items, next: rows.length > limit ? String(items.at(-1)?.number) : null };
}

/** The unfinished builds of a workspace, oldest first. */
export function unfinishedBuilds(db: Queryable, workspaceId: string): Promise<BuildRow[]> {
  return db
    .select()
    .from(builds)
    .where(and(eq(builds.workspaceId, workspaceId), inArray(builds.status, ['queued', 'running'])))
    .orderBy(builds.number);
}

export interface NewBuild {
  transition: Transition;
  templateVersionId: string;
  parameters: ParameterValues;
  options: BuildOptions;
  reason: string;
  /** The user who requested it; null: the server itself. */
  initiator: { userId: string; username: string } | null;
}

/** Queues a build and makes it the workspace's current one. The caller has locked the workspace. Returns the build's id. */
export async function insertBuild(
  tx: Queryable,
  now: Date,
  workspaceId: string,
  { initiator, ...values }: NewBuild,
): Promise<string> {
  const id = v7();
  const [last] = await tx
    .select({ number: max(builds.number) })
    .from(builds)
    .where(eq(builds.workspaceId, workspaceId));
  await tx.insert(builds).values({
    id,
    workspaceId,
    number: (last?.number ?? 0) + 1,
    ...values,
    status: 'queued',
    stages: [{ name: 'queued', status: 'running', startedAt: now.toISOString(), finishedAt: null }],
    initiatorId: initiator?.userId ?? null,
    initiator: initiator?.username ?? 'system',
    createdAt: now,
  });
  await tx
    .update(workspaces)
    .set({ currentBuildId: id, desired: transitionStates[values.transition].desired, updatedAt: now })
    .where(eq(workspaces.id, workspaceId));
  return id;
}

/** Requests the cancellation of a workspace's unfinished starts and updates. */
export async function cancelUnfinishedStarts(tx: Queryable, workspaceId: string): Promise<void> {
  await tx
    .update(builds)
    .set({ cancelRequested: true })
    .where(
      and(
        eq(builds.workspaceId, workspaceId),
        inArray(builds.status, ['queued', 'running']),
        inArray(builds.transition, ['start', 'update']),
      ),
    );
}

export async function requestCancel(tx: Queryable, buildId: string): Promise<void> {
  await tx.update(builds).set({ cancelRequested: true }).where(eq(builds.id, buildId));
}
