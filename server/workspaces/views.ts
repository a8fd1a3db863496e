import { eq, max } from 'drizzle-orm';
import type { Database } from '../database/pool.ts';
import { buildLogs, builds, workspaces } from '../database/schema.ts';
import type { TopicReader } from '../events/hub.ts';
import { readLog, redactStartupOutput } from './build-log.ts';
import { readWorkspace } from './read.ts';
import { readBuild } from './store.ts';

const logPage = 500;

/** Workspaces and builds as the hub tells them. */
export function makeViews(database: Database, now: () => Date, mayRead: TopicReader['canRead']): TopicReader {
  const { db } = database;
  return {
    canRead: mayRead,
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
      const build = await readBuild(db, id);
      if (!build) return null;
      const [row] = await db
        .select({ ownerId: workspaces.ownerId })
        .from(workspaces)
        .innerJoin(builds, eq(builds.workspaceId, workspaces.id))
        .where(eq(builds.id, id));
      return { ownerId: row!.ownerId, message: (topic) => ({ type: 'build', topic, build }) };
    },
    log: (buildId, after) => readLog(db, buildId, after, logPage),
    redactLines: redactStartupOutput,
    async logEnd(buildId) {
      const [row] = await db
        .select({ end: max(buildLogs.seq) })
        .from(buildLogs)
        .where(eq(buildLogs.buildId, buildId));
      return row?.end ?? 0;
    },
  };
}
