import { Problem } from '@cde/api/problem.ts';
import type { Build } from '@cde/api/workspaces.ts';
import { and, desc, eq, inArray, lt, ne, or, type SQL, sql } from 'drizzle-orm';
import type { Queryable } from '../database/pool.ts';
import { builds, templateVersions, users, workspaces } from '../database/schema.ts';
import type { UserActor } from '../http/actor.ts';
import { authorize, isAllowed } from '../identity/authorize.ts';
import { parseRef, workspaceNotFound } from './read.ts';

export type WorkspaceRow = typeof workspaces.$inferSelect;
export type BuildRow = typeof builds.$inferSelect;

/** `owner/name`, for callers that hold only the row. */
export async function workspaceRef(
  db: Queryable,
  row: Pick<WorkspaceRow, 'ownerId' | 'name'>,
): Promise<string> {
  const [owner] = await db.select({ username: users.username }).from(users).where(eq(users.id, row.ownerId));
  return `${owner?.username}/${row.name}`;
}

export function toBuild(row: BuildRow, templateVersion: number): Build {
  return {
    id: row.id,
    workspaceId: row.workspaceId,
    number: row.number,
    transition: row.transition,
    status: row.status,
    templateVersion,
    stages: row.stages,
    error: row.error,
    initiator: row.initiator,
    reason: row.reason,
    cancelRequested: row.cancelRequested,
    createdAt: row.createdAt.toISOString(),
    startedAt: row.startedAt?.toISOString() ?? null,
    finishedAt: row.finishedAt?.toISOString() ?? null,
  };
}

function refCondition(ref: string, actor: UserActor): SQL | undefined {
  const named = parseRef(ref, actor);
  if ('id' in named) return eq(workspaces.id, named.id);
  return and(
    eq(users.username, named.owner),
    eq(workspaces.name, named.name),
    ne(workspaces.status, 'deleted'),
  );
}

/**
 * The one way by which a request reaches a workspace: finds it and authorises. Who may not even read it
 * is told that it does not exist.
 */
export async function findWorkspace(
  db: Queryable,
  actor: UserActor,
  ref: string,
  permission: 'workspace:read' | 'workspace:operate' | 'workspace:connect' | 'workspace:delete',
): Promise<{ row: WorkspaceRow; owner: string }> {
  const [found] = await db
    .select({ row: workspaces, owner: users.username })
    .from(workspaces)
    .innerJoin(users, eq(users.id, workspaces.ownerId))
    .where(refCondition(ref, actor));
  if (!found || !isAllowed(actor, 'workspace:read', found.row)) throw workspaceNotFound(ref);
  authorize(actor, permission, found.row);
  return found;
}

/** A build and its workspace's owner. */
export async function findBuild(
  db: Queryable,
  actor: UserActor,
  id: string,
  permission: 'workspace:read' | 'workspace:operate',
): Promise<{ build: Build; row: BuildRow; workspace: WorkspaceRow; owner: string }> {
  const [found] = await db
    .select({ build: builds, number: templateVersions.number, workspace: workspaces, owner: users.username })
    .from(builds)
    .innerJoin(workspaces, eq(workspaces.id, builds.workspaceId))
    .innerJoin(users, eq(users.id, workspaces.ownerId))
    .innerJoin(templateVersions, eq(templateVersions.id, builds.templateVersionId))
    .where(eq(builds.id, id));
  if (!found || !isAllowed(actor, 'workspace:read', found.workspace))
    throw new Problem('build-not-found', `There is no build ${id} that you may see.`);
  authorize(actor, permission, found.workspace);
  return {
    build: toBuild(found.build, found.number),
    row: found.build,
    workspace: found.workspace,
    owner: found.owner,
  };
}

/** One build as the API shows it. */
export async function readBuild(db: Queryable, id: string): Promise<Build | null> {
  const [row] = await db
    .select({ build: builds, number: templateVersions.number })
    .from(builds)
    .innerJoin(templateVersions, eq(templateVersions.id, builds.templateVersionId))
    .where(eq(builds.id, id));
  return row ? toBuild(row.build, row.number) : null;
}

/** A page of a workspace's builds, newest first; `after` is a build number. */
export async function listBuilds(
  db: Queryable,
  workspaceId: string,
  limit: number,
  after: string | undefined,
): Promise<{ items: Build[]; next: string | null }> {
  const before = after === undefined ? undefined : Number(after);
  if (before !== undefined && !Number.isInteger(before))
    throw new Problem('bad-request', 'This `after` is not from a page of builds.');
  const rows = await db
    .select({ build: builds, number: templateVersions.number })
    .from(builds)
    .innerJoin(templateVersions, eq(templateVersions.id, builds.templateVersionId))
    .where(
      and(eq(builds.workspaceId, workspaceId), before === undefined ? undefined : lt(builds.number, before)),
    )
    .orderBy(desc(builds.number))
    .limit(limit + 1);
  const items = rows.slice(0, limit).map((row) => toBuild(row.build, row.number));
  return { items, next: rows.length > limit ? String(items.at(-1)?.number) : null };
}

/** The builds of a workspace that have not ended, oldest first. */
export function unfinishedBuilds(db: Queryable, workspaceId: string): Promise<BuildRow[]> {
  return db
    .select()
    .from(builds)
    .where(and(eq(builds.workspaceId, workspaceId), inArray(builds.status, ['queued', 'running'])))
    .orderBy(builds.number);
}

/** Workspaces that somebody should look at: after a (re)start of the server (null), or because nothing wakes them. */
export async function workspacesToReconcile(db: Queryable, silentSince: Date | null): Promise<string[]> {
  const rows = await db
    .select({ id: workspaces.id })
    .from(workspaces)
    .where(
      silentSince === null
        ? or(
            inArray(workspaces.status, ['pending', 'starting', 'running', 'stopping', 'deleting']),
            sql`EXISTS (SELECT 1 FROM ${builds} WHERE ${builds.workspaceId} = ${workspaces.id} AND ${builds.status} IN ('queued', 'running'))`,
          )
        : or(
            and(
              eq(workspaces.status, 'running'),
              or(sql`${workspaces.agentSeenAt} IS NULL`, lt(workspaces.agentSeenAt, silentSince)),
            ),
            // Nobody will take the next step of what is under way.
            sql`EXISTS (SELECT 1 FROM ${builds} WHERE ${builds.workspaceId} = ${workspaces.id} AND ${builds.status} IN ('queued', 'running'))
              AND NOT EXISTS (SELECT 1 FROM graphile_worker._private_jobs WHERE key = 'workspace:' || ${workspaces.id} AND attempts < max_attempts)`,
          ),
    );
  return rows.map((row) => row.id);
}
