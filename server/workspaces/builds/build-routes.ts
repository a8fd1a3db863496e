import * as api from '@cde/api/workspaces.ts';
import type { FastifyInstance } from 'fastify';
import { serve } from '../../http/serve.ts';
import { isUnfinished } from '../statuses.ts';
import { findWorkspace } from '../store.ts';
import { readLog, redactScriptOutput } from './build-log.ts';
import { findBuild, listBuilds, readBuild } from './build-store.ts';
import { watchBuild } from './build-watch.ts';
import { type BuildDeps, cancelBuild } from './builds.ts';

/** `/workspaces/:workspace/builds` and `/builds/:build`. */
export function buildRoutes(app: FastifyInstance, deps: BuildDeps): void {
  const { bus } = deps;
  const { db } = deps.database;

  serve(app, api.listBuilds, async ({ actor, params, query }) => {
    const { row } = await findWorkspace(db, actor, params.workspace, 'workspace:read');
    return listBuilds(db, row.id, query.limit, query.after);
  });

  serve(
    app,
    api.getBuild,
    async ({ actor, params }) => (await findBuild(db, actor, params.build, 'workspace:read')).build,
  );

  serve(app, api.getBuildLog, async ({ actor, params, query, request }) => {
    const { workspace } = await findBuild(db, actor, params.build, 'workspace:read');
    const changes = watchBuild(bus, params.build, query.wait * 1000, request.raw.socket);
    try {
      for (;;) {
        // Read the build before its lines: if it has ended by then, these lines are the last.
        const build = (await readBuild(db, params.build))!;
        const lines = await readLog(db, build.id, query.after, query.limit);
        const ended = !isUnfinished(build.status);
        if (lines.length > 0 || ended || !(await changes.next()))
          return {
            lines: actor.userId === workspace.ownerId ? lines : redactScriptOutput(lines),
            build,
            done: ended && lines.length < query.limit,
          };
      }
    } finally {
      changes.stop();
    }
  });

  serve(app, api.cancelBuild, async (input) => {
    const { build, workspace } = await findBuild(db, input.actor, input.params.build, 'workspace:operate');
    return cancelBuild(deps, input, build.id, workspace);
  });
}
