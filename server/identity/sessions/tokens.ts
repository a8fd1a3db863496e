import { dayMs } from '@cde/api/durations.ts';
import type { Scope, Token } from '@cde/api/identity.ts';
import { Problem } from '@cde/api/problem.ts';
import { and, desc, eq, gt, lt } from 'drizzle-orm';
import { v7 } from 'uuid';
import type { Database, Queryable } from '../../database/pool.ts';
import { apiTokens, users } from '../../database/schema.ts';
import type { Caller, UserActor } from '../../http/actor.ts';
import { fromCursor, isUuid, toPage } from '../../http/cursor.ts';
import { writeAudit } from '../audit/audit.ts';
import { hashSecret, makeSecret } from '../secrets.ts';

/** Unexpired tokens of one user. A script that creates a token on every run must not fill the table. */
export const maxTokens = 200;

type TokenRow = typeof apiTokens.$inferSelect;

/** A token as the API returns it, without its secret, which is not stored. */
export function toToken(row: TokenRow): Token {
  return {
    id: row.id,
    name: row.name,
    scopes: row.scopes,
    createdAt: row.createdAt.toISOString(),
    expiresAt: row.expiresAt.toISOString(),
    lastUsedAt: row.lastUsedAt?.toISOString() ?? null,
  };
}

/**
 * Creates a token for the caller and writes its audit row. Throws `scope-too-small` if it would have more scopes than the
 * caller's own token, and `token-limit-reached`.
 */
export async function insertToken(
  tx: Queryable,
  caller: Caller<UserActor>,
  { name, scopes, days, now }: { name: string; scopes: Scope[]; days: number; now: Date },
): Promise<{ secret: string; row: TokenRow }> {
  const { actor } = caller;
  const excess = scopes.filter((scope) => !actor.scopes.includes('all') && !actor.scopes.includes(scope));
  if (excess.length > 0)
    throw new Problem(
      'scope-too-small',
      `Your token cannot create one with the scope ${excess.join(', ')}.`,
      {
        detail: `Your token's scope is ${actor.scopes.join(', ')}.`,
        hint: 'Request a smaller scope, or create the token in the dashboard.',
      },
    );
  // Locks the user, so that concurrent requests do not exceed the limit together.
  await tx.select({ id: users.id }).from(users).where(eq(users.id, actor.userId)).for('update');
  const count = await tx.$count(
    apiTokens,
    and(eq(apiTokens.userId, actor.userId), gt(apiTokens.expiresAt, now)),
  );
  if (count >= maxTokens)
    throw new Problem('token-limit-reached', `You have ${count} tokens, and the limit is ${maxTokens}.`, {
      hint: 'Revoke tokens that you no longer use. Expired ones do not count.',
    });
  const secret = makeSecret('cde');
  const [row] = await tx
    .insert(apiTokens)
    .values({
      id: v7(),
      tokenHash: hashSecret(secret),
      userId: actor.userId,
      name,
      // `all` includes the others; listing them as well would be misleading.
      scopes: scopes.includes('all') ? ['all'] : [...new Set(scopes)],
      createdAt: now,
      expiresAt: new Date(now.getTime() + days * dayMs),
    })
    .returning();
  await writeAudit(tx, caller, {
    action: 'token.create',
    targetType: 'token',
    targetId: row!.id,
    targetName: name,
    after: { scopes: row!.scopes, expiresAt: row!.expiresAt.toISOString() },
  });
  return { secret, row: row! };
}

/** A page of a user's tokens, newest first. Includes expired ones, so that users see why a script stopped working. */
export async function listTokens(
  { db }: Database,
  userId: string,
  query: { limit: number; after?: string | undefined },
): Promise<{ items: Token[]; next: string | null }> {
  const rows = await db
    .select()
    .from(apiTokens)
    .where(
      and(
        eq(apiTokens.userId, userId),
        query.after === undefined ? undefined : lt(apiTokens.id, fromCursor(query.after, isUuid)),
      ),
    )
    .orderBy(desc(apiTokens.id))
    .limit(query.limit + 1);
  return toPage(rows, query.limit, (row) => row.id, toToken);
}

/** Revokes a token of the caller. Throws `token-not-found`, also for tokens of other users. */
export async function revokeToken({ db }: Database, caller: Caller<UserActor>, id: string): Promise<void> {
  await db.transaction(async (tx) => {
    const [row] = await tx
      .delete(apiTokens)
      .where(and(eq(apiTokens.id, id), eq(apiTokens.userId, caller.actor.userId)))
      .returning();
    if (!row)
      throw new Problem('token-not-found', 'You have no token with this id.', {
        actions: [{ kind: 'list-tokens' }],
      });
    await writeAudit(tx, caller, {
      action: 'token.revoke',
      targetType: 'token',
      targetId: id,
      targetName: row.name,
      before: { scopes: row.scopes, expiresAt: row.expiresAt.toISOString() },
    });
  });
}
