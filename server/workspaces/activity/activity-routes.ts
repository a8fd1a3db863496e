import * as api from '@cde/api/activity.ts';
import { previewCleanup, releaseBrake } from '@cde/api/cleanup.ts';
import type { FastifyInstance } from 'fastify';
import type { Database } from '../../database/pool.ts';
import { closeSignal, serve, serveAgent } from '../../http/serve.ts';
import { writeAudit } from '../../identity/audit/audit.ts';
import type { IdleSweep } from '../../idle/sweep.ts';
import { findWorkspace } from '../store.ts';
import type { UnusedSweep } from '../unused/unused.ts';
import type { WorkspaceActivities } from './activity.ts';
import type { Shutdowns } from './shutdown.ts';

/** Why workspaces are awake, what keeps them so, and what cleanup does. */
export function activityRoutes(
  app: FastifyInstance,
  deps: {
    database: Database;
    activities: WorkspaceActivities;
    shutdowns: Shutdowns;
    sweep: IdleSweep;
    unused: Pick<UnusedSweep, 'release'>;
  },
): void {
  const { activities, shutdowns, sweep, unused } = deps;
  const { db } = deps.database;

  serve(app, api.getWorkspaceActivity, async ({ actor, params }) => {
    const { row } = await findWorkspace(db, actor, params.workspace, 'workspace:read');
    return activities.describe(row.id);
  });
  serve(app, api.listActivityEvents, async ({ actor, params, query }) => {
    const { row } = await findWorkspace(db, actor, params.workspace, 'workspace:read');
    return activities.events(row.id, query);
  });
  serve(app, api.setIdleChoices, async (input) => {
    const { row } = await findWorkspace(db, input.actor, input.params.workspace, 'workspace:operate');
    return activities.choose(input, row.id, input.body);
  });
  serve(app, api.keepWorkspace, async (input) => {
    const { row } = await findWorkspace(db, input.actor, input.params.workspace, 'workspace:operate');
    return activities.keep(input, row.id);
  });
  serve(app, api.createLease, async (input) => {
    const { row } = await findWorkspace(db, input.actor, input.params.workspace, 'workspace:operate');
    return activities.grant(input, row.id, input.body);
  });
  serve(app, api.endLease, async (input) => {
    const { row } = await findWorkspace(db, input.actor, input.params.workspace, 'workspace:operate');
    await activities.end(input, row.id, input.params.lease);
  });

  serve(app, previewCleanup, ({ query }) => activities.preview(query));
  serve(app, releaseBrake, async (input) => {
    const released =
      (await sweep.release(input.actor.username)) + (await unused.release(input.actor.username));
    await writeAudit(db, input, {
      action: 'cleanup.release',
      targetType: 'settings',
      targetId: 'cleanup',
      targetName: 'cleanup brake',
      after: { released },
    });
    return { released };
  });

  serveAgent(app, api.createAgentLease, (input) =>
    activities.grant(input, input.actor.workspaceId, input.body),
  );
  serveAgent(app, api.endAgentLease, (input) =>
    activities.end(input, input.actor.workspaceId, input.params.lease),
  );
  serveAgent(app, api.awaitShutdown, async ({ actor, body, reply }) => ({
    shutdown: await shutdowns.waitFor(actor, body?.waitMs ?? 25_000, closeSignal(reply)),
  }));
  serveAgent(app, api.postAgentShutdown, ({ actor, body }) => shutdowns.answer(actor, body));
}
