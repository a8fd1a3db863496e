import { Problem } from '@cde/api/problem.ts';
import { and, desc, eq, isNotNull, sql } from 'drizzle-orm';
import { v7 } from 'uuid';
import type { Queryable } from '../database/pool.ts';
import { templates, templateVersions, users, workspaces } from '../database/schema.ts';
import type { Caller } from '../http/actor.ts';
import { isUuid } from '../http/cursor.ts';
import { writeAudit } from '../identity/audit/audit.ts';
import type { ProviderState } from '../providers/provider.ts';

/** How long an adopted home is retained, even if homes of deleted workspaces are not retained at all. */
const minRetentionMs = 7 * 24 * 3600_000;

/** A home that an administrator gives to a user. */
export interface AdoptedHomeRecord {
  provider: string;
  /** A username. */
  owner: string;
  /** The name of its workspace. */
  name: string;
  /** The user and workspace that it belonged to, as the platform has them. */
  formerOwner: string | null;
  formerWorkspaceId: string | null;
  /** The volume or folder. */
  volume: string;
  cluster: string | null;
  state: ProviderState;
}

/** Until when a home that is adopted now is retained, and since when the platform has to say that it is. */
export function retentionOf(now: Date, homeGraceMs: number): { keptUntil: Date; retainedAt: Date } {
  const keptUntil = new Date(now.getTime() + Math.max(homeGraceMs, minRetentionMs));
  return { keptUntil, retainedAt: new Date(keptUntil.getTime() - homeGraceMs) };
}

/**
 * Inserts the deleted workspace of an adopted home, from which a user can restore it. `id`: the workspace that it
 * belonged to, unless that one is in the database.
 */
export async function insertAdoptedHome(
  tx: Queryable,
  caller: Caller,
  { keptUntil, now }: { keptUntil: Date; now: Date },
  home: AdoptedHomeRecord,
): Promise<{ id: string; owner: string }> {
  const user = await findOwner(tx, home.owner);
  const before = home.formerWorkspaceId ?? '';
  const id = isUuid(before) && !(await workspaceExists(tx, before)) ? before : v7();
  await tx.insert(workspaces).values({
    id,
    ownerId: user.id,
    name: home.name,
    ...(await latestTemplate(tx, home.provider)),
    provider: home.provider,
    desired: 'deleted',
    status: 'deleted',
    providerState: home.state,
    cluster: home.cluster,
    createdAt: now,
    updatedAt: now,
    deletedAt: now,
    homeKeptUntil: keptUntil,
  });
  await writeAudit(tx, caller, {
    action: 'home.adopt',
    targetType: 'workspace',
    targetId: id,
    targetName: `${user.username}/${home.name}`,
    before: { owner: home.formerOwner, workspaceId: home.formerWorkspaceId },
    after: {
      ...(home.cluster === null ? { provider: home.provider } : { cluster: home.cluster }),
      volume: home.volume,
    },
  });
  return { id, owner: user.username };
}

/** @throws user-not-found */
export async function findOwner(tx: Queryable, username: string): Promise<{ id: string; username: string }> {
  const [user] = await tx
    .select({ id: users.id, username: users.username })
    .from(users)
    .where(eq(users.username, username));
  if (user) return user;
  throw new Problem(
    'user-not-found',
    username === ''
      ? 'The home does not say which user it belonged to.'
      : `There is no user ${username} to own the home.`,
    {
      hint:
        username === ''
          ? 'Name a user: --owner NAME'
          : 'Create the user first, or name another: --owner NAME',
    },
  );
}

async function workspaceExists(tx: Queryable, id: string): Promise<boolean> {
  const [row] = await tx.select({ id: workspaces.id }).from(workspaces).where(eq(workspaces.id, id));
  return row !== undefined;
}

/**
 * Every workspace needs a template. The original one is unknown; the restore chooses another.
 * @throws template-not-found
 */
export async function latestTemplate(
  tx: Queryable,
  provider: string,
): Promise<{ templateId: string; templateVersionId: string }> {
  const [found] = await tx
    .select({ templateId: templates.id, templateVersionId: templateVersions.id })
    .from(templates)
    .innerJoin(templateVersions, eq(templateVersions.id, templates.activeVersionId))
    .where(
      and(
        isNotNull(templates.activeVersionId),
        sql`${templateVersions.content} ->> 'provider' = ${provider}`,
      ),
    )
    .orderBy(desc(templates.updatedAt))
    .limit(1);
  if (!found)
    throw new Problem('template-not-found', `There is no template with the provider ${provider} yet.`, {
      hint: 'Publish one first: a home is restored into a workspace, which needs a template.',
      actions: [{ kind: 'publish-template' }],
    });
  return found;
}
