import { Problem } from '@cde/api/problem.ts';
import { and, eq, isNotNull } from 'drizzle-orm';
import type { Database } from '../database/pool.ts';
import { builds, workspaces } from '../database/schema.ts';
import { isBootSecret } from '../providers/vm/boot-secret.ts';

/** What virtual machines and their providers ask the server while a machine boots. */
export function makeBoots({ db }: Database, agentToken: (buildId: string) => string) {
  return {
    /** The agent's token for the secret of its build, until the agent has registered. */
    async exchange(buildId: string, secret: string): Promise<string> {
      const token = agentToken(buildId);
      const rejected = (message: string) =>
        new Problem('boot-rejected', message, { hint: 'Start the workspace again.' });
      if (!isBootSecret(secret, token)) throw rejected('The server does not know this boot secret.');
      const [row] = await db
        .select({ current: workspaces.agentBuildId, key: workspaces.agentTlsKey, status: builds.status })
        .from(builds)
        .innerJoin(workspaces, eq(workspaces.id, builds.workspaceId))
        .where(eq(builds.id, buildId));
      if (row?.current !== buildId || row.status !== 'running')
        throw rejected('The workspace has a newer build, or it was stopped.');
      if (row.key !== null) throw rejected('The agent of this build has registered already.');
      return token;
    },
    /** Whether the agent of the build has registered. */
    async hasRegistered(buildId: string): Promise<boolean> {
      const found = await db
        .select({ id: workspaces.id })
        .from(workspaces)
        .where(and(eq(workspaces.agentBuildId, buildId), isNotNull(workspaces.agentTlsKey)));
      return found.length > 0;
    },
  };
}

export type Boots = ReturnType<typeof makeBoots>;
