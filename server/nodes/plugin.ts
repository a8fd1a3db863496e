import * as api from '@cde/api/nodes.ts';
import fp from 'fastify-plugin';
import { serve } from '../http/serve.ts';
import { loggerOf } from '../log.ts';
import { findWorkspace } from '../workspaces/store.ts';
import { makeIncidentLog } from './incidents.ts';
import { listNodes, showNode } from './read.ts';

/** The machines that workspaces run on, and what happens to them. */
export const nodesPlugin = fp(
  async (app) => {
    const { database, bus, providers } = app;
    // Nodes have no owner. Every role that reads clusters can read all workspaces too.
    serve(app, api.listNodes, async ({ actor, query: { workspace, ...filter } }) => {
      const found =
        workspace === undefined
          ? undefined
          : await findWorkspace(database.db, actor, workspace, 'workspace:read');
      return listNodes(database, providers, {
        ...filter,
        ...(found && { workspace: found.row }),
      });
    });
    serve(app, api.getNode, ({ params }) => showNode(database, providers, params.node));

    const incidents = makeIncidentLog({ database, bus, log: loggerOf(app) });
    app.onStart(async () => {
      for (const provider of providers.values()) provider.onNodeIncident?.(incidents.record);
    });
    app.addHook('onClose', () => incidents.settled());
  },
  { name: 'nodes', dependencies: ['database', 'events', 'http', 'identity', 'providers', 'workspaces'] },
);
