import { Problem } from '@cde/api/problem.ts';
import type { RetainedHome } from '@cde/api/workspaces.ts';
import { and, desc, eq, gt, isNotNull, lt, type SQL, sql } from 'drizzle-orm';
import type { Database, Queryable } from '../database/pool.ts';
import { templates, users, workspaces } from '../database/schema.ts';
import type { Caller, UserActor } from '../http/actor.ts';
import { fromCursor, isUuid, toPage } from '../http/cursor.ts';
import { writeAudit } from '../identity/audit/audit.ts';
import { authorize, grantFor, isAllowed } from '../identity/auth/authorize.ts';
import type { Provider } from '../providers/provider.ts';

interface Deps {
  database: Database;
  now: () => Date;
}

const notFound = (id: string) =>
  new Problem('home-not-found', `There is no retained home ${id}.`, {
    detail: 'It was never retained, was discarded or restored, or its grace period is over.',
    actions: [{ kind: 'list-homes' }],
  });

function select(db: Queryable, where: SQL | undefined) {
  return db
    .select({ row: workspaces, owner: users.username, template: templates.name })
    .from(workspaces)
    .innerJoin(users, eq(users.id, workspaces.ownerId))
    .innerJoin(templates, eq(templates.id, workspaces.templateId))
    .where(where);
}

/** A page of the retained homes that the actor can see, newest first. */
export async function listRetainedHomes(
  { database, now, providers }: Deps & { providers: ReadonlyMap<string, Pick<Provider, 'describeHome'>> },
  actor: UserActor,
  query: { owner?: string | undefined; limit: number; after?: string | undefined },
): Promise<{ items: RetainedHome[]; next: string | null }> {
  const after = query.after === undefined ? undefined : fromCursor(query.after, isUuid);
  const owner = query.owner === 'me' ? actor.username : query.owner;
  const rows = await select(
    database.db,
    and(
      isNotNull(workspaces.homeKeptUntil),
      gt(workspaces.homeKeptUntil, now()),
      grantFor(actor, 'workspace:read') === 'any' ? undefined : eq(workspaces.ownerId, actor.userId),
      owner === undefined ? undefined : eq(users.username, owner),
      after === undefined ? undefined : lt(workspaces.id, after),
    ),
  )
    .orderBy(desc(workspaces.id))
    .limit(query.limit + 1);
  return toPage(
    rows,
    query.limit,
    ({ row }) => row.id,
    ({ row, owner, template }) => ({
      id: row.id,
      owner,
      workspace: row.name,
      template,
      provider: row.provider,
      cluster: row.cluster,
      size: providers.get(row.provider)?.describeHome(row.providerState).size ?? null,
      deletedAt: (row.deletedAt ?? row.updatedAt).toISOString(),
      keptUntil: row.homeKeptUntil!.toISOString(),
    }),
  );
}

/** Locks the row of a retained home. Throws `home-not-found`, also if the actor cannot see it. */
async function lockRetainedHome(tx: Queryable, actor: UserActor, id: string) {
  const [row] = await tx
    .select()
    .from(workspaces)
    .where(and(eq(workspaces.id, id), eq(workspaces.status, 'deleted')))
    .for('update');
  if (!row?.homeKeptUntil || !isAllowed(actor, 'workspace:read', row)) throw notFound(id);
  return row;
}

/** Deletes a retained home and its storage for good. */
export async function discardRetainedHome(
  { database, providers }: Deps & { providers: ReadonlyMap<string, Pick<Provider, 'purgeHomes'>> },
  caller: Caller<UserActor>,
  id: string,
): Promise<void> {
  await database.db.transaction(async (tx) => {
    const row = await lockRetainedHome(tx, caller.actor, id);
    authorize(caller.actor, 'workspace:delete', row);
    const provider = providers.get(row.provider);
    if (!provider)
      throw new Problem(
        'provider-not-available',
        `The provider ${row.provider} is not available on this server.`,
      );
    const { purged, incomplete } = await provider.purgeHomes({ only: id });
    if (incomplete && !purged.includes(id))
      throw new Problem('cluster-away', `The home could not be deleted from the cluster ${row.cluster}.`, {
        hint: 'Try again once the cluster is reachable.',
        ...(row.cluster !== null && { actions: [{ kind: 'show-cluster', cluster: row.cluster }] }),
        retryAfter: 10,
      });
    await tx.update(workspaces).set({ homeKeptUntil: null }).where(eq(workspaces.id, id));
    await writeAudit(tx, caller, {
      action: 'home.discard',
      targetType: 'workspace',
      targetId: id,
      targetName: row.name,
    });
  });
}

/**
 * Claims a retained home for a new workspace of `ownerId`, within the transaction that creates the workspace, so that
 * nothing else can claim it and the sweep does not delete it.
 */
export async function claimHome(
  tx: Queryable,
  actor: UserActor,
  id: string,
  target: { ownerId: string; provider: string },
): Promise<void> {
  const row = await lockRetainedHome(tx, actor, id);
  if (row.ownerId !== target.ownerId)
    throw new Problem('home-not-restorable', 'A home can only be restored into a workspace of its owner.');
  if (row.provider !== target.provider)
    throw new Problem(
      'home-not-restorable',
      `The home belongs to the provider ${row.provider}, but the template uses ${target.provider}.`,
      { hint: `Use a template with the provider ${row.provider}.` },
    );
  await tx.update(workspaces).set({ homeKeptUntil: null }).where(eq(workspaces.id, id));
}

/**
 * The homes that the sweep must not delete: those that a workspace is about to take over, and those within their grace
 * period. A provider only knows when a home was set aside, and that of a dormant workspace was long before its deletion.
 */
export async function protectedHomes(db: Queryable, now: Date): Promise<Set<string>> {
  const { rows } = await db.execute<{ id: string }>(sql`
    SELECT restore_from AS id FROM workspaces WHERE restore_from IS NOT NULL AND status <> 'deleted'
    UNION ALL
    SELECT id FROM workspaces WHERE home_kept_until > ${now.toISOString()}`);
  return new Set(rows.map(({ id }) => id));
}
