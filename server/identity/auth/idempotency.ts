import { createHash, createHmac } from 'node:crypto';
import { Problem } from '@cde/api/problem.ts';
import { and, eq, lt } from 'drizzle-orm';
import type { Database } from '../../database/pool.ts';
import { idempotencyKeys } from '../../database/schema.ts';
import type { UserActor } from '../../http/actor.ts';

/** How long a reply is stored, and after what time an unfinished request no longer blocks its key. */
const replyTtlMs = 24 * 3600_000;
const abandonedMs = 60_000;

/**
 * Runs `work` once per (user, key) and stores its reply for a day. Rejects the same key with a different request, and a
 * repeated request while the first is in progress. A failed request is not stored, so a retry runs it again.
 */
export async function runIdempotent(
  { db }: Database,
  now: () => Date,
  actor: UserActor,
  givenKey: string,
  fingerprint: string,
  work: () => Promise<{ status: number; body: unknown }>,
): Promise<{ status: number; body: unknown; replayed: boolean }> {
  // A body can contain a password, and a plain hash of the request would make it easy to guess from a stolen database.
  // The client's random key serves as a salt and is not stored.
  const key = createHash('sha256').update(givenKey).digest('base64url');
  const requestHash = createHmac('sha256', givenKey).update(fingerprint).digest();
  const ownKey = and(eq(idempotencyKeys.userId, actor.userId), eq(idempotencyKeys.key, key));
  // Also distinguishes this entry from that of a later request, if this one takes so long that it counts as abandoned.
  let createdAt: Date;
  for (;;) {
    createdAt = now();
    const taken = await db
      .insert(idempotencyKeys)
      .values({ userId: actor.userId, key, requestHash, createdAt })
      .onConflictDoNothing()
      .returning({ key: idempotencyKeys.key });
    if (taken.length > 0) break;
    const [row] = await db.select().from(idempotencyKeys).where(ownKey);
    if (!row) continue;
    const age = now().getTime() - row.createdAt.getTime();
    if (age > replyTtlMs || (row.status === null && age > abandonedMs)) {
      await db.delete(idempotencyKeys).where(and(ownKey, eq(idempotencyKeys.createdAt, row.createdAt)));
      continue;
    }
    if (!row.requestHash.equals(requestHash))
      throw new Problem('idempotency-key-reused', 'This Idempotency-Key was used for a different request.', {
        hint: 'Use a new key for each request.',
      });
    if (row.status === null)
      throw new Problem(
        'idempotency-in-progress',
        'The first request with this Idempotency-Key is still in progress.',
        { retryAfter: 1 },
      );
    return { status: row.status, body: row.response, replayed: true };
  }
  const ownEntry = and(ownKey, eq(idempotencyKeys.createdAt, createdAt));
  try {
    const { status, body } = await work();
    await db
      .update(idempotencyKeys)
      .set({ status, response: body ?? null })
      .where(ownEntry);
    return { status, body, replayed: false };
  } catch (error) {
    await db
      .delete(idempotencyKeys)
      .where(ownEntry)
      .catch(() => {});
    throw error;
  }
}

/** Deletes replies older than a day; called by the sweep. */
export async function deleteExpiredReplies({ db }: Database, now: () => Date): Promise<void> {
  await db
    .delete(idempotencyKeys)
    .where(lt(idempotencyKeys.createdAt, new Date(now().getTime() - replyTtlMs)));
}
