import { Problem } from '@cde/api/problem.ts';
import type { DesiredState } from '@cde/api/workspaces.ts';
import { and, eq, inArray, lt, ne, or, type SQL, sql } from 'drizzle-orm';
import type { Queryable } from '../database/pool.ts';
import { builds, templates, templateVersions, users, workspaces } from '../database/schema.ts';
import type { UserActor } from '../http/actor.ts';
import { authorize, isAllowed } from '../identity/auth/authorize.ts';
import { parseRef, workspaceNotFound } from './read.ts';

export type WorkspaceRow = typeof workspaces.$inferSelect;
export type BuildRow = typeof builds.$inferSelect;

function refCondition(ref: string, actor: UserActor): SQL | undefined {
  const parsed = parseRef(ref, actor);
  if ('id' in parsed) return eq(workspaces.id, parsed.id);
  return and(
    eq(users.username, parsed.owner),
    eq(workspaces.name, parsed.name),
    ne(workspaces.status, 'deleted'),
  );
}

/**
 * Finds a workspace and authorizes `permission`; every request for a workspace goes through here. Throws
 * `workspace-not-found` if the actor cannot even read it.
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

/**
 * Reads a workspace and locks its row until the transaction ends. Rows that refer to it can still be inserted: an agent's report
 * locks the row of the activity and then inserts events, while a start locks the workspace and then needs the activity.
 */
export async function lockWorkspace(tx: Queryable, id: string): Promise<WorkspaceRow | null> {
  const [row] = await tx.select().from(workspaces).where(eq(workspaces.id, id)).for('no key update');
  return row ?? null;
}

export async function insertWorkspace(
  tx: Queryable,
  now: Date,
  values: Pick<
    WorkspaceRow,
    | 'id'
    | 'ownerId'
    | 'restoreFrom'
    | 'name'
    | 'templateId'
    | 'templateVersionId'
    | 'parameters'
    | 'provider'
    | 'desired'
    | 'status'
  >,
): Promise<void> {
  await tx.insert(workspaces).values({ ...values, createdAt: now, updatedAt: now });
}

export async function setDesired(tx: Queryable, now: Date, id: string, desired: DesiredState): Promise<void> {
  await tx.update(workspaces).set({ desired, updatedAt: now }).where(eq(workspaces.id, id));
}

/** Throws the database's error if the name is taken: see `isDuplicate` and `nameTaken`. */
export async function setName(tx: Queryable, now: Date, id: string, name: string): Promise<void> {
  await tx.update(workspaces).set({ name, updatedAt: now }).where(eq(workspaces.id, id));
}

/** `ref`: the other workspace as `owner/name`. */
export const nameTaken = (ref: string) =>
  new Problem('workspace-name-taken', `A workspace named ${ref.split('/')[1]} already exists.`, {
    hint: 'Choose another name, or delete the other workspace.',
    actions: [{ kind: 'show-workspace', workspace: ref }],
  });

/** `owner/name` of a workspace. */
export async function workspaceRef(
  db: Queryable,
  { ownerId, name }: Pick<WorkspaceRow, 'ownerId' | 'name'>,
): Promise<string> {
  const [owner] = await db.select({ username: users.username }).from(users).where(eq(users.id, ownerId));
  return `${owner?.username}/${name}`;
}

export async function findUserId(db: Queryable, username: string): Promise<string | null> {
  const [user] = await db.select({ id: users.id }).from(users).where(eq(users.username, username));
  return user?.id ?? null;
}

/** A template and its active version. */
export async function activeVersion(db: Queryable, template: { id: string } | { name: string }) {
  const [row] = await db
    .select({ template: templates, version: templateVersions })
    .from(templates)
    .innerJoin(templateVersions, eq(templateVersions.id, templates.activeVersionId))
    .where('id' in template ? eq(templates.id, template.id) : eq(templates.name, template.name));
  return row ?? null;
}

const hasUnfinishedBuild = sql`EXISTS (
  SELECT 1 FROM ${builds} WHERE ${builds.workspaceId} = ${workspaces.id} AND ${builds.status} IN ('queued', 'running'))`;

/** The workspaces to reconcile after a start of the server: everything that runs, or that has an unfinished build. */
export async function workspacesAtStart(db: Queryable): Promise<string[]> {
  return selectIds(
    db,
    or(
      inArray(workspaces.status, ['pending', 'starting', 'running', 'stopping', 'deleting']),
      hasUnfinishedBuild,
    ),
  );
}

/**
 * The workspaces that no event will wake: running ones whose agent has been silent since `silentSince`, and unfinished
 * builds without a queued job.
 */
export async function stalledWorkspaces(db: Queryable, silentSince: Date): Promise<string[]> {
  return selectIds(
    db,
    or(
      and(
        eq(workspaces.status, 'running'),
        or(sql`${workspaces.agentSeenAt} IS NULL`, lt(workspaces.agentSeenAt, silentSince)),
      ),
      sql`${hasUnfinishedBuild} AND NOT EXISTS (
        SELECT 1 FROM graphile_worker._private_jobs WHERE key = 'workspace:' || ${workspaces.id} AND attempts < max_attempts)`,
    ),
  );
}

async function selectIds(db: Queryable, condition: SQL | undefined): Promise<string[]> {
  const rows = await db.select({ id: workspaces.id }).from(workspaces).where(condition);
  return rows.map(({ id }) => id);
}
