import { eq, max } from 'drizzle-orm';
import type { Database } from '../database/pool.ts';
import { buildLogs } from '../database/schema.ts';
import type { TopicReader } from '../events/hub.ts';
import { readLog, redactScriptOutput } from './builds/build-log.ts';
import { readBuildWithWorkspace } from './builds/build-store.ts';
import { readWorkspace } from './read.ts';

const logPageLines = 500;

/** Reads workspaces, builds and logs for live events. */
export function makeTopicReader(
  database: Database,
  now: () => Date,
  canRead: TopicReader['canRead'],
): TopicReader {
  const { db } = database;
  return {
    canRead,
    async workspace(id) {
      const found = await readWorkspace(database, id, now());
      if (!found) return null;
      const { workspace, ownerId } = found;
      return {
        ownerId,
        message: (topic) =>
          workspace.status === 'deleted'
            ? { type: 'workspace-gone', topic, id }
            : { type: 'workspace', topic, workspace },
      };
    },
    async build(id) {
      const found = await readBuildWithWorkspace(db, id);
      if (!found) return null;
      const { build, workspace } = found;
      return { ownerId: workspace.ownerId, message: (topic) => ({ type: 'build', topic, build }) };
    },
    log: (buildId, after) => readLog(db, buildId, after, logPageLines),
    redactLines: redactScriptOutput,
    async logEnd(buildId) {
      const [row] = await db
        .select({ end: max(buildLogs.seq) })
        .from(buildLogs)
        .where(eq(buildLogs.buildId, buildId));
      return row?.end ?? 0;
    },
  };
}
