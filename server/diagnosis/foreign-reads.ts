import type { Database } from '../database/pool.ts';
import type { Caller, UserActor } from '../http/actor.ts';
import { writeAudit } from '../identity/audit/audit.ts';

/** A page that refreshes itself reads the same session again and again. */
const repeatMs = 3600_000;
const maxRemembered = 10_000;

/** Writes an audit entry when somebody reads what another person's sessions recorded: one an hour for each reader and target. */
export function makeForeignReads({ db }: Database, now: () => Date) {
  const written = new Map<string, number>();
  return async (
    { actor, requestId, ip }: Caller<UserActor>,
    entry: { action: 'session.view' | 'session.list'; targetId: string; targetName: string },
  ): Promise<void> => {
    const key = `${actor.userId} ${entry.action} ${entry.targetId}`;
    const at = now().getTime();
    if (at - (written.get(key) ?? Number.NEGATIVE_INFINITY) < repeatMs) return;
    if (written.size >= maxRemembered) written.clear();
    // Before it is written: a page sends several requests at once.
    written.set(key, at);
    try {
      await writeAudit(db, { actor, requestId, ip }, { ...entry, targetType: 'session' });
    } catch (error) {
      written.delete(key);
      throw error;
    }
  };
}
