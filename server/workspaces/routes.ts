import { postAgentLogs, postAgentStartup, postAgentStats, registerAgent } from '@cde/api/agent.ts';
import { Problem } from '@cde/api/problem.ts';
import * as api from '@cde/api/workspaces.ts';
import type { FastifyInstance } from 'fastify';
import { serve, serveAgent } from '../http/serve.ts';
import { authorize } from '../identity/auth/authorize.ts';
import type { Provider } from '../providers/provider.ts';
import type { Agents } from './agents.ts';
import { buildRoutes } from './builds/build-routes.ts';
import { type BuildDeps, requestBuild } from './builds/builds.ts';
import { createWorkspace } from './create.ts';
import { discardRetainedHome, listRetainedHomes } from './homes.ts';
import { listWorkspaces, readWorkspace, showWorkspace } from './read.ts';
import { renameWorkspace } from './rename.ts';
import { findWorkspace } from './store.ts';

export interface WorkspaceRouteDeps extends BuildDeps {
  providers: ReadonlyMap<string, Pick<Provider, 'purgeHomes' | 'describeHome'>>;
  agents: Agents;
  /** Whether users other than the owner can move a workspace to another template version. */
  foreignUpdates: boolean;
}

export function workspaceRoutes(app: FastifyInstance, deps: WorkspaceRouteDeps): void {
  const { database, now, agents } = deps;
  const { db } = database;

  /** A template version can read everything in the home, so the owner chooses it, unless the server's policy says otherwise. */
  function requireOwner({ userId }: { userId: string }, ownerId: string): void {
    if (userId === ownerId || deps.foreignUpdates) return;
    throw new Problem('owner-must-agree', 'Only the owner can change what runs in this workspace.', {
      detail: 'A template version or parameter that the owner has not chosen could read their files.',
      hint: 'Ask the owner to update it. You can stop, start and restart the workspace as it is. A server administrator can allow this with --foreign-updates on.',
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

  serve(app, api.getWorkspaceStats, async ({ actor, params }) => {
    const { row } = await findWorkspace(db, actor, params.workspace, 'workspace:read');
    return { stats: row.agentStats };
  });

  serve(app, api.listRetainedHomes, ({ actor, query }) => listRetainedHomes(deps, actor, query));
  serve(app, api.deleteRetainedHome, (input) => discardRetainedHome(deps, input, input.params.home));

  buildRoutes(app, deps);

  serveAgent(app, registerAgent, ({ actor, body }) => agents.register(actor, body));
  serveAgent(app, postAgentLogs, ({ actor, body }) => agents.appendLogs(actor, body.process, body.lines));
  serveAgent(app, postAgentStartup, ({ actor, body }) => agents.reportStartup(actor, body));
  serveAgent(app, postAgentStats, ({ actor, body }) => agents.recordStats(actor, body));
}
