import type { Relay } from '@cde/satellite/relay.ts';
import { and, eq, inArray } from 'drizzle-orm';
import type { Database } from '../database/pool.ts';
import { users } from '../database/schema.ts';
import type { Logger } from '../log.ts';

/** How long a session may outlive the suspension of its user: under the ten seconds that are promised. */
const everyMs = 8_000;

/**
 * A session once open outlives its ticket, but not its user: asks, for this replica's satellite, who of
 * those connected may no longer be, and ends their sessions. A database that is away decides nothing.
 */
export function makeCutOff({
  database,
  relay,
  log,
}: {
  database: Database;
  relay: Pick<Relay, 'users' | 'endUser'>;
  log: Logger;
}) {
  async function check(): Promise<void> {
    const connected = relay.users();
    if (connected.length === 0) return;
    const rows = await database.db
      .select({ id: users.id })
      .from(users)
      .where(and(inArray(users.id, connected), eq(users.status, 'active')));
    const active = new Set(rows.map(({ id }) => id));
    for (const userId of connected) {
      if (active.has(userId)) continue;
      log.info({ userId }, 'the sessions of a suspended or deleted user are ended');
      relay.endUser(userId);
    }
  }
  const timer = setInterval(
    () =>
      check().catch((error) => log.debug({ err: error }, 'the users of open sessions were not looked up')),
    everyMs,
  );
  timer.unref();
  return { check, stop: () => clearInterval(timer) };
}
