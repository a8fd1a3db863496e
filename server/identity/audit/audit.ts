import { dayMs } from '@cde/api/durations.ts';
import type { AuditRow } from '@cde/api/identity.ts';
import { and, desc, eq, gte, like, lt, lte, or } from 'drizzle-orm';
import { v7 } from 'uuid';
import type { Database, Queryable } from '../../database/pool.ts';
import { audit } from '../../database/schema.ts';
import type { Caller } from '../../http/actor.ts';
import { escapeLike, fromCursor, isUuid, toPage } from '../../http/cursor.ts';

export interface AuditEntry {
  /** For example `workspace.create` or `user.update`. */
  action: string;
  targetType:
    | 'workspace'
    | 'template'
    | 'user'
    | 'token'
    | 'session'
    | 'build'
    | 'satellite'
    | 'cluster'
    | 'provider'
    | 'settings';
  targetId: string;
  targetName: string;
  before?: unknown;
  after?: unknown;
}

/** The server acting without a request: the first start, a sweep. `requestId` is the job's id or a name. */
export interface SystemCaller {
  actor: { kind: 'system' };
  requestId: string;
  ip: null;
}

/** Writes one audit row in the transaction of the change that it records. Never put secrets into before/after. */
export async function writeAudit(
  tx: Queryable,
  caller: Caller | SystemCaller,
  entry: AuditEntry,
): Promise<void> {
  const { actor } = caller;
  await tx.insert(audit).values({
    id: v7(),
    actorId: actor.kind === 'user' ? actor.userId : null,
    actor: actor.kind === 'user' ? actor.username : actor.kind,
    action: entry.action,
    targetType: entry.targetType,
    targetId: entry.targetId,
    targetName: entry.targetName,
    before: entry.before ?? null,
    after: entry.after ?? null,
    requestId: caller.requestId,
    ip: caller.ip,
  });
}

/** Rows deleted per statement, so that a first sweep of millions does not hold locks for long. */
const maxDeletedAtOnce = 5_000;

/** Deletes entries older than `days`; called by the sweep. */
export async function deleteOldAudit({ pool }: Database, days: number, now: () => Date): Promise<void> {
  const before = new Date(now().getTime() - days * dayMs);
  // Ids are UUIDv7, so the primary key finds the oldest rows without an index on `at`.
  for (let deleted = maxDeletedAtOnce; deleted === maxDeletedAtOnce; ) {
    const { rowCount } = await pool.query(
      `DELETE FROM audit WHERE id IN
         (SELECT id FROM (SELECT id, at FROM audit ORDER BY id LIMIT $2) AS oldest WHERE at < $1)`,
      [before, maxDeletedAtOnce],
    );
    deleted = rowCount ?? 0;
  }
}

export interface AuditFilter {
  limit: number;
  after?: string | undefined;
  actor?: string | undefined;
  /** An action, or a prefix such as `user.*`. */
  action?: string | undefined;
  /** The name or id of the target. */
  target?: string | undefined;
  /** ISO 8601; the range includes both ends. */
  since?: string | undefined;
  until?: string | undefined;
}

/** A page of the audit log, newest first. */
export async function readAudit(
  { db }: Database,
  filter: AuditFilter,
): Promise<{ items: AuditRow[]; next: string | null }> {
  const { action, target } = filter;
  const rows = await db
    .select()
    .from(audit)
    .where(
      and(
        filter.actor === undefined ? undefined : eq(audit.actor, filter.actor),
        action === undefined
          ? undefined
          : action.endsWith('*')
            ? like(audit.action, `${escapeLike(action.slice(0, -1))}%`)
            : eq(audit.action, action),
        target === undefined ? undefined : or(eq(audit.targetName, target), eq(audit.targetId, target)),
        filter.since === undefined ? undefined : gte(audit.at, new Date(filter.since)),
        filter.until === undefined ? undefined : lte(audit.at, new Date(filter.until)),
        // Ids are UUIDv7: ordered by time and, unlike timestamps, unique.
        filter.after === undefined ? undefined : lt(audit.id, fromCursor(filter.after, isUuid)),
      ),
    )
    .orderBy(desc(audit.id))
    .limit(filter.limit + 1);
  return toPage(
    rows,
    filter.limit,
    (row) => row.id,
    (row) => ({
      id: row.id,
      at: row.at.toISOString(),
      actor: row.actor,
      action: row.action,
      targetType: row.targetType,
      targetId: row.targetId,
      targetName: row.targetName,
      before: row.before,
      after: row.after,
      requestId: row.requestId,
      ip: row.ip,
    }),
  );
}
