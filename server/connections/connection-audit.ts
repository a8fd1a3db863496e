import type { FastifyBaseLogger } from 'fastify';
import type { Database } from '../database/pool.ts';
import type { Caller, UserActor } from '../http/actor.ts';
import { writeAudit } from '../identity/audit.ts';

/** Clients ask for tickets again and again; who connected to what is worth a row an hour. */
const intervalMs = 3600_000;
/** What is remembered of that. The oldest is forgotten, and at worst written down again. */
const maxEntries = 10_000;

/** Audit rows of who connected to which workspace: one an hour for each user, workspace, address and way. */
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
        // A database that can only be read is no reason to keep people from their workspaces.
        written.delete(key);
        log.warn({ err: error }, 'a connection could not be written to the audit log');
      }
    },
  };
}

export type ConnectionAudit = ReturnType<typeof makeConnectionAudit>;
