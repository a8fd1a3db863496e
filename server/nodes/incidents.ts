import { eq } from 'drizzle-orm';
import type { Database } from '../database/pool.ts';
import { workspaces } from '../database/schema.ts';
import type { Bus } from '../events/bus.ts';
import type { Logger } from '../log.ts';
import type { NodeIncident } from '../providers/provider.ts';
import { appendLog } from '../workspaces/builds/build-log.ts';

/**
 * Writes incidents of nodes to the logs of the builds that their workspaces run from, one after the other: a node with many workspaces must
 * not take all connections. Each replica sees each incident; the key makes sure that one line is stored.
 */
export function makeIncidentLog({ database, bus, log }: { database: Database; bus: Bus; log: Logger }): {
  record(incident: NodeIncident): void;
  /** Resolves when all are written. */
  settled(): Promise<void>;
} {
  let last = Promise.resolve();

  async function write({ workspaceId, key, at, level, text }: NodeIncident): Promise<void> {
    const [row] = await database.db
      .select({ buildId: workspaces.currentBuildId })
      .from(workspaces)
      .where(eq(workspaces.id, workspaceId));
    if (!row?.buildId) return;
    const { buildId } = row;
    await database.db.transaction((tx) =>
      appendLog(tx, buildId, [
        { at, stage: 'ready', source: 'provider', level, text, agent: { process: `node ${key}`, seq: 0 } },
      ]),
    );
    bus.publish({ workspaceId, buildId });
  }

  return {
    record(incident) {
      last = last
        .then(() => write(incident))
        .catch((error) =>
          log.warn(
            { err: error, workspace: incident.workspaceId },
            'an incident of a node could not be recorded',
          ),
        );
    },
    settled: () => last,
  };
}
