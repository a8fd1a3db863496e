import { lte } from 'drizzle-orm';
import type { Database } from '../database/pool.ts';
import { browserSessions, cliLogins, oidcLogins, oneTimeLinks, portCodes } from '../database/schema.ts';
import { deleteExpiredReplies } from './auth/idempotency.ts';
import { deleteOldFailures } from './sign-in/attempt-limit.ts';

/** Deletes expired rows: sessions, links, pending logins, counted failures, stored replies. */
export async function sweepIdentity(database: Database, now: () => Date): Promise<void> {
  for (const table of [browserSessions, oneTimeLinks, cliLogins, oidcLogins, portCodes])
    await database.db.delete(table).where(lte(table.expiresAt, now()));
  await deleteOldFailures({ database, now });
  await deleteExpiredReplies(database, now);
}
