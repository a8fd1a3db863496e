import type { FastifyBaseLogger } from 'fastify';
import type { Database } from '../database/pool.ts';
import type { Caller, UserActor } from '../http/actor.ts';
import { writeAudit } from '../identity/audit/audit.ts';

/** Clients request tickets repeatedly; one row an hour is enough to record who connected to what. */
const intervalMs = 3600_000;
/** The oldest entry is evicted; at worst its connection is audited a second time. */
const maxEntries = 10_000;

/** Writes audit rows for connections to workspaces: one per hour for each user, workspace, address and kind of connection. */
export function makeConnectionAudit({
  database,
  now,
  log,
}: {
  database: Database;
  now: () => Date;
  log: Pick<FastifyBaseLogger, 'warn'>;
}) {
  const written = new Map<string, number>();
  return {
    async record(
      caller: Caller<UserActor>,
      workspace: { workspaceId: string; workspace: string },
      by: 'session' | 'terminal' | 'satellite-terminal',
    ): Promise<void> {
      const key = [caller.actor.userId, workspace.workspaceId, caller.ip, by].join(' ');
      const at = now().getTime();
      const last = written.get(key);
      if (last !== undefined && at - last < intervalMs) return;
      written.delete(key);
      written.set(key, at);
      if (written.size > maxEntries) written.delete(written.keys().next().value!);
      try {
        await writeAudit(database.db, caller, {
          action: 'workspace.connect',
          targetType: 'workspace',
          targetId: workspace.workspaceId,
          targetName: workspace.workspace,
          after: { by, ...(caller.actor.via.kind === 'token' && { token: caller.actor.via.id }) },
        });
      } catch (error) {
        // A read-only database must not keep people out of their workspaces.
        written.delete(key);
        log.warn({ err: error }, 'could not write a connection to the audit log');
      }
    },
  };
}

export type ConnectionAudit = ReturnType<typeof makeConnectionAudit>;
