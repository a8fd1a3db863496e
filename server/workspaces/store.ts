import type { Build, Workspace, WorkspaceStatus } from '@cde/api/workspaces.ts';
import { aliasedTable, and, desc, eq, ilike, inArray, lt, ne, or, type SQL, sql } from 'drizzle-orm';
import type { Db, Queryable } from '../database/pool.ts';
import { builds, templates, templateVersions, users, workspaces } from '../database/schema.ts';
import { Problem } from '../errors.ts';
import type { UserActor } from '../http/actor.ts';
import { authorize, may } from '../identity/authorize.ts';

export type WorkspaceRow = typeof workspaces.$inferSelect;
export type BuildRow = typeof builds.$inferSelect;

/** An agent reports every 30 s; after two missed reports it counts as away. */
const awayAfterMs = 75_000;

const activeVersion = aliasedTable(templateVersions, 'active_version');
const buildVersion = aliasedTable(templateVersions, 'build_version');

const columns = {
  workspace: workspaces,
  owner: users.username,
  template: templates.name,
  version: templateVersions.number,
  activeNumber: activeVersion.number,
  build: builds,
  buildNumber: buildVersion.number,
};

function joined(db: Queryable) {
  // A transaction reads as the database does; the union of the two defeats Drizzle's types.
  return (db as Db)
    .select(columns)
    .from(workspaces)
    .innerJoin(users, eq(users.id, workspaces.ownerId))
    .innerJoin(templates, eq(templates.id, workspaces.templateId))
    .innerJoin(templateVersions, eq(templateVersions.id, workspaces.templateVersionId))
    .leftJoin(activeVersion, eq(activeVersion.id, templates.activeVersionId))
    .leftJoin(builds, eq(builds.id, workspaces.currentBuildId))
    .leftJoin(buildVersion, eq(buildVersion.id, builds.templateVersionId))
    .$dynamic();
}
interface Joined {
  workspace: WorkspaceRow;
  owner: string;
  template: string;
  version: number;
  activeNumber: number | null;
  build: BuildRow | null;
  buildNumber: number | null;
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

function toWorkspace(row: Joined, now: Date): Workspace {
  const w = row.workspace;
  const seen = w.agentSeenAt;
  return {
    id: w.id,
    owner: row.owner,
    name: w.name,
    template: row.template,
    templateVersion: row.version,
    activeTemplateVersion: row.activeNumber ?? row.version,
    outdated: row.activeNumber !== null && row.activeNumber !== row.version,
    provider: w.provider,
    parameters: w.parameters,
    desired: w.desired,
    status: w.status,
    reason: w.reason,
    isolation: w.isolation,
    agent: {
      connected: w.agentTlsKey !== null && seen !== null && now.getTime() - seen.getTime() < awayAfterMs,
      version: w.agentVersion,
      lastSeenAt: seen?.toISOString() ?? null,
      sshHostKey: w.agentSshHostKey,
    },
    latestBuild: row.build ? toBuild(row.build, row.buildNumber ?? row.version) : null,
    createdAt: w.createdAt.toISOString(),
    updatedAt: w.updatedAt.toISOString(),
  };
}

const uuidPattern = /^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$/;

/** A workspace reference as a condition: an id, `owner~name` (or `owner/name`), or a name of the actor's own. */
function matches(ref: string, actor: UserActor): SQL | undefined {
  if (uuidPattern.test(ref)) return eq(workspaces.id, ref);
  const [owner, name] = ref.split(/[~/]/, 2);
  const living = ne(workspaces.status, 'deleted');
  if (name === undefined) return and(eq(workspaces.ownerId, actor.userId), eq(workspaces.name, ref), living);
  return and(eq(users.username, owner!), eq(workspaces.name, name), living);
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
    .where(matches(ref, actor));
  if (!found || !may(actor, 'workspace:read', found.row))
    throw new Problem(
      'workspace-not-found',
      `There is no workspace ${ref.replace('~', '/')} that you may see.`,
      { hint: 'List yours: cde list' },
    );
  authorize(actor, permission, found.row);
  return found;
}

/** One workspace as the API shows it; null when there is none. */
export async function readWorkspace(
  db: Queryable,
  id: string,
  now: Date,
): Promise<{ workspace: Workspace; ownerId: string } | null> {
  const rows: Joined[] = await joined(db).where(eq(workspaces.id, id));
  const row = rows[0];
  return row ? { workspace: toWorkspace(row, now), ownerId: row.workspace.ownerId } : null;
}

export interface ListFilter {
  limit: number;
  after?: string | undefined;
  owner?: string | undefined;
  status?: WorkspaceStatus | undefined;
  template?: string | undefined;
  search?: string | undefined;
}

/** A page of the workspaces that the actor may read, newest first. */
export async function listWorkspaceRows(
  db: Db,
  actor: UserActor,
  filter: ListFilter,
  now: Date,
): Promise<{ items: Workspace[]; next: string | null }> {
  if (filter.after !== undefined && !uuidPattern.test(filter.after))
    throw new Problem('bad-request', 'This `after` is not from a page of workspaces.', {
      hint: 'Pass on `next` of the page before, as it was.',
    });
  const own = !may(actor, 'workspace:read', { ownerId: '' });
  const like = filter.search?.replace(/[\\%_]/g, (sign) => `\\${sign}`);
  const rows: Joined[] = await joined(db)
    .where(
      and(
        filter.status === undefined ? ne(workspaces.status, 'deleted') : eq(workspaces.status, filter.status),
        own || filter.owner === 'me' ? eq(workspaces.ownerId, actor.userId) : undefined,
        filter.owner !== undefined && filter.owner !== 'me' ? eq(users.username, filter.owner) : undefined,
        filter.template === undefined ? undefined : eq(templates.name, filter.template),
        like === undefined
          ? undefined
          : or(ilike(workspaces.name, `%${like}%`), ilike(users.username, `%${like}%`)),
        filter.after === undefined ? undefined : lt(workspaces.id, filter.after),
      ),
    )
    .orderBy(desc(workspaces.id))
    .limit(filter.limit + 1);
  const items = rows.slice(0, filter.limit).map((row) => toWorkspace(row, now));
  return { items, next: rows.length > filter.limit ? (items.at(-1)?.id ?? null) : null };
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
  if (!found || !may(actor, 'workspace:read', found.workspace))
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
export async function listBuildRows(
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
export function openBuilds(db: Queryable, workspaceId: string): Promise<BuildRow[]> {
  return db
    .select()
    .from(builds)
    .where(and(eq(builds.workspaceId, workspaceId), inArray(builds.status, ['queued', 'running'])))
    .orderBy(builds.number);
}

/** Workspaces whose state somebody should look at after a (re)start of the server, or when their agent fell silent. */
export async function workspacesToLookAt(db: Queryable, silentSince: Date | null): Promise<string[]> {
  const rows = await db
    .select({ id: workspaces.id })
    .from(workspaces)
    .where(
      silentSince === null
        ? or(
            inArray(workspaces.status, ['pending', 'starting', 'running', 'stopping', 'deleting']),
            sql`EXISTS (SELECT 1 FROM ${builds} WHERE ${builds.workspaceId} = ${workspaces.id} AND ${builds.status} IN ('queued', 'running'))`,
          )
        : and(
            eq(workspaces.status, 'running'),
            or(sql`${workspaces.agentSeenAt} IS NULL`, lt(workspaces.agentSeenAt, silentSince)),
          ),
    );
  return rows.map((row) => row.id);
}
