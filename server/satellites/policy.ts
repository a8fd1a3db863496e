import type { DirectListen, PathKind } from '@cde/api/agent.ts';
import { DirectListen as Direct } from '@cde/api/agent.ts';
import type { ConnectionSection } from '@cde/api/templates.ts';
import { sql } from 'drizzle-orm';
import type { Database } from '../database/pool.ts';
import type { Regions } from './registry.ts';

/** How sessions may reach a workspace. */
export interface AllowedPaths {
  paths: PathKind[];
  regions: Regions;
  /** Where its agent listens for direct connections; null where it may not. */
  direct: DirectListen | null;
}

export interface ConnectionPolicy {
  /** Of the build whose agent runs: the server's setting, and its template's within that. */
  forBuild(buildId: string | null): Promise<AllowedPaths>;
}

/** A build never changes, and agents ask with each report. */
const maxCached = 20_000;

/** What one template's `connection` leaves of what the server allows. */
export function allowedPaths(
  ofServer: readonly PathKind[],
  section: ConnectionSection | null | undefined,
): AllowedPaths {
  const paths = ofServer.filter((kind) => section?.paths?.includes(kind) ?? true);
  return {
    paths,
    regions: section?.regions ?? null,
    direct: paths.includes('direct-tcp') ? Direct.parse(section?.direct ?? {}) : null,
  };
}

export function makeConnectionPolicy(options: {
  database: Database;
  /** The kinds that the server allows. */
  paths: readonly PathKind[];
}): ConnectionPolicy {
  const { database, paths } = options;
  const known = new Map<string, AllowedPaths>();
  return {
    async forBuild(buildId) {
      if (buildId === null) return allowedPaths(paths, null);
      const before = known.get(buildId);
      if (before) return before;
      const { rows } = await database.db.execute<{ section: ConnectionSection | null }>(
        sql`SELECT rendered -> 'connection' AS section FROM builds WHERE id = ${buildId}::uuid`,
      );
      const allowed = allowedPaths(paths, rows[0]?.section);
      if (known.size >= maxCached) known.clear();
      if (rows[0]) known.set(buildId, allowed);
      return allowed;
    },
  };
}
