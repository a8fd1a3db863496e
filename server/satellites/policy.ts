import type { DirectListen, PathKind } from '@cde/api/agent.ts';
import { DirectListen as Direct } from '@cde/api/agent.ts';
import type { ConnectionSection } from '@cde/api/template-file.ts';
import { sql } from 'drizzle-orm';
import type { Database } from '../database/pool.ts';
import type { Regions } from './registry.ts';

/** How sessions can reach a workspace. */
export interface AllowedPaths {
  paths: PathKind[];
  regions: Regions;
  /** Where its agent listens for direct connections; null if it must not. */
  direct: DirectListen | null;
}

export interface ConnectionPolicy {
  /** For the build whose agent runs: what both the server and its template allow. */
  forBuild(buildId: string | null): Promise<AllowedPaths>;
}

/** A build never changes, and every report of an agent looks it up. */
const maxCached = 20_000;

/** What both the server and a template's `connection` section allow. */
export function allowedPaths(
  serverPaths: readonly PathKind[],
  section: ConnectionSection | null | undefined,
): AllowedPaths {
  const paths = serverPaths.filter((kind) => section?.paths?.includes(kind) ?? true);
  return {
    paths,
    regions: section?.regions ?? null,
    direct: paths.includes('direct-tcp') ? Direct.parse(section?.direct ?? {}) : null,
  };
}

export function makeConnectionPolicy(options: {
  database: Database;
  /** The paths that the server allows. */
  paths: readonly PathKind[];
}): ConnectionPolicy {
  const { database, paths } = options;
  const cache = new Map<string, AllowedPaths>();
  return {
    async forBuild(buildId) {
      if (buildId === null) return allowedPaths(paths, null);
      const cached = cache.get(buildId);
      if (cached) return cached;
      const { rows } = await database.db.execute<{ section: ConnectionSection | null }>(
        sql`SELECT rendered -> 'connection' AS section FROM builds WHERE id = ${buildId}::uuid`,
      );
      const allowed = allowedPaths(paths, rows[0]?.section);
      if (cache.size >= maxCached) cache.clear();
      if (rows[0]) cache.set(buildId, allowed);
      return allowed;
    },
  };
}
