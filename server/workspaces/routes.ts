import { postAgentLogs, postAgentStartup, postAgentStats, registerAgent } from '@cde/api/agent.ts';
import { Problem } from '@cde/api/problem.ts';
import * as api from '@cde/api/workspaces.ts';
import type { FastifyInstance } from 'fastify';
import type { Database } from '../database/pool.ts';
import type { Bus } from '../events/bus.ts';
import { serve, serveAgent } from '../http/serve.ts';
import { authorize } from '../identity/authorize.ts';
import type { Provider } from '../providers/provider.ts';
import type { Agents } from './agents.ts';
import { readLog, redactStartupOutput } from './build-log.ts';
import { cancelBuild, createWorkspace, requestBuild } from './builds.ts';
import { discardRetainedHome, listRetainedHomes } from './homes.ts';
import { listWorkspaces, readWorkspace, showWorkspace } from './read.ts';
import { renameWorkspace } from './rename.ts';
import { isUnfinished } from './statuses.ts';
import { findBuild, findWorkspace, listBuilds, readBuild } from './store.ts';

export interface WorkspaceRouteDeps {
  database: Database;
  bus: Bus;
  now: () => Date;
  providers: ReadonlyMap<string, Pick<Provider, 'purgeHomes' | 'describeHome'>>;
  agents: Agents;
  /** Whether others than its owner may move a workspace to another template version. */
  foreignUpdates: boolean;
}

export function workspaceRoutes(app: FastifyInstance, deps: WorkspaceRouteDeps): void {
  const { database, bus, now, agents } = deps;
  const { db } = database;

  /** A template version runs with all that is in the home: its owner chooses it, or a policy that all admins can read. */
  function requireOwner({ userId }: { userId: string }, ownerId: string): void {
    if (userId === ownerId || deps.foreignUpdates) return;
    throw new Problem('owner-must-agree', "Only the workspace's owner chooses what runs on their home.", {
      detail: 'A template version or parameter that they have not chosen could read their files.',
      hint: 'Ask them to update it. You can stop, start and restart the workspace as it is. An administrator of the server can allow this: --foreign-updates on.',
    });
  }

  serve(app, api.listWorkspaces, ({ actor, query }) => listWorkspaces(database, actor, query, now()));

  serve(app, api.createWorkspace, async (input) => {
    const id = await createWorkspace(
      deps,
      input,
      (ownerId) => {
        authorize(input.actor, 'workspace:create', { ownerId });
        if (input.body.home !== undefined) requireOwner(input.actor, ownerId);
      },
      input.body,
    );
    return (await readWorkspace(database, id, now()))!.workspace;
  });

  serve(app, api.getWorkspace, ({ actor, params }) =>
    showWorkspace(database, actor, params.workspace, now()),
  );

  serve(app, api.renameWorkspace, async (input) => {
    const { row } = await findWorkspace(db, input.actor, input.params.workspace, 'workspace:operate');
    await renameWorkspace(deps, input, row.id, input.body.name);
    return (await readWorkspace(database, row.id, now()))!.workspace;
  });

  serve(app, api.startWorkspace, async (input) => {
    const { row } = await findWorkspace(db, input.actor, input.params.workspace, 'workspace:operate');
    return requestBuild(deps, input, { workspaceId: row.id, transition: 'start' });
  });

  serve(app, api.restartWorkspace, async (input) => {
    const { row } = await findWorkspace(db, input.actor, input.params.workspace, 'workspace:operate');
    return requestBuild(deps, input, {
      workspaceId: row.id,
      transition: 'start',
      restart: true,
      reason: 'restart',
      action: 'workspace.restart',
    });
  });

  serve(app, api.stopWorkspace, async (input) => {
    const { row } = await findWorkspace(db, input.actor, input.params.workspace, 'workspace:operate');
    return requestBuild(deps, input, { workspaceId: row.id, transition: 'stop' });
  });

  serve(app, api.updateWorkspace, async (input) => {
    const { row } = await findWorkspace(db, input.actor, input.params.workspace, 'workspace:operate');
    requireOwner(input.actor, row.ownerId);
    return requestBuild(deps, input, {
      workspaceId: row.id,
      transition: 'update',
      parameters: input.body?.parameters,
      force: input.body?.force,
    });
  });

  serve(app, api.deleteWorkspace, async (input) => {
    const { row } = await findWorkspace(db, input.actor, input.params.workspace, 'workspace:delete');
    return requestBuild(deps, input, { workspaceId: row.id, transition: 'delete', home: input.query.home });
  });

  serve(app, api.listRetainedHomes, ({ actor, query }) => listRetainedHomes(deps, actor, query));

  serve(app, api.deleteRetainedHome, (input) => discardRetainedHome(deps, input, input.params.home));

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
    const found = await findBuild(db, actor, params.build, 'workspace:read');
    const changed = watchBuild(bus, params.build, query.wait * 1000, request.raw.socket);
    try {
      for (;;) {
        // The build is read before its lines: if it had ended by then, no line can come after these.
        const build = (await readBuild(db, found.build.id))!;
        const lines = await readLog(db, build.id, query.after, query.limit);
        const ended = !isUnfinished(build.status);
        if (lines.length > 0 || ended || !(await changed.next()))
          return {
            lines: actor.userId === found.workspace.ownerId ? lines : redactStartupOutput(lines),
            build,
            done: ended && lines.length < query.limit,
          };
      }
    } finally {
      changed.stop();
    }
  });

  serve(app, api.cancelBuild, async (input) => {
    const { build, workspace } = await findBuild(db, input.actor, input.params.build, 'workspace:operate');
    return cancelBuild(deps, input, build.id, workspace);
  });

  serve(app, api.getWorkspaceStats, async ({ actor, params }) => {
    const { row } = await findWorkspace(db, actor, params.workspace, 'workspace:read');
    return { stats: row.agentStats };
  });

  serveAgent(app, registerAgent, ({ actor, body }) => agents.register(actor, body));
  serveAgent(app, postAgentLogs, ({ actor, body }) => agents.appendLogs(actor, body.process, body.lines));
  serveAgent(app, postAgentStartup, ({ actor, body }) => agents.reportStartup(actor, body));
  serveAgent(app, postAgentStats, ({ actor, body }) => agents.recordStats(actor, body));
}

/** Waits for changes of one build, for `forMs` in all; `next` resolves to false when the time is up. Other replicas' changes come by the bus too; a poll each 2 s stands behind it. */
function watchBuild(
  bus: Bus,
  buildId: string,
  forMs: number,
  socket: Pick<NodeJS.EventEmitter, 'once' | 'off'>,
) {
  let over = forMs <= 0;
  let dirty = false;
  let wake: (() => void) | null = null;
  const touch = () => {
    dirty = true;
    wake?.();
  };
  const finish = () => {
    over = true;
    touch();
  };
  const unsubscribe = bus.subscribe((change) => {
    if (change.buildId === buildId) touch();
  }, touch);
  const limit = setTimeout(finish, forMs);
  const poll = setInterval(touch, 2_000);
  socket.once('close', finish);
  return {
    async next(): Promise<boolean> {
      if (over) return false;
      if (!dirty)
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      dirty = false;
      return !over;
    },
    stop() {
      unsubscribe();
      // The connection is kept for the next request.
      socket.off('close', finish);
      clearTimeout(limit);
      clearInterval(poll);
    },
  };
}
