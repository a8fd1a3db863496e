import { v7 } from 'uuid';
import type { Queryable } from '../database/pool.ts';
import { audit } from '../database/schema.ts';
import type { Caller } from '../http/actor.ts';

export interface AuditEntry {
  /** `workspace.create`, `user.update`, … */
  action: string;
  targetType: 'workspace' | 'template' | 'user' | 'token' | 'session' | 'build';
  targetId: string;
  targetName: string;
  before?: unknown;
  after?: unknown;
}

/** Writes one audit row, in the transaction of the change it tells of. Secrets never go into before/after. */
export async function writeAudit(tx: Queryable, caller: Caller, entry: AuditEntry): Promise<void> {
  const { actor } = caller;
  await tx.insert(audit).values({
    id: v7(),
    actorId: actor.kind === 'user' ? actor.userId : null,
    actor: actor.kind === 'user' ? actor.username : actor.kind === 'agent' ? 'agent' : 'anonymous',
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
