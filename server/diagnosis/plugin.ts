import * as api from '@cde/api/diagnosis.ts';
import fp from 'fastify-plugin';
import { serve, serveAgent } from '../http/serve.ts';
import { loggerOf } from '../log.ts';
import { findWorkspace } from '../workspaces/store.ts';
import { makeIncidents } from './incidents.ts';
import { makePartitions } from './partitions.ts';
import { makeRecordings, type RecordingBatch } from './recordings.ts';
import { makeDiagnosisWorker } from './worker.ts';

/** A window with such a round trip may be part of a slow spell. */
const maybeSlowMs = 100;

const isNoteworthy = ({ events, windows }: RecordingBatch) =>
  events.some(({ kind }) => kind !== 'opened' && kind !== 'moved') ||
  windows.some(({ toAgent }) => (toAgent?.p95 ?? 0) > maybeSlowMs);

/** What clients and agents see of sessions, and what went wrong in them and why. */
export const diagnosisPlugin = fp(
  async (app) => {
    const { database, now, satellites } = app;
    const partitions = makePartitions(database.db);
    const recordings = makeRecordings({ database, partitions, now });
    const incidents = makeIncidents({
      database,
      now,
      satelliteNames: async () =>
        new Map((await satellites.forClients(null)).map(({ url, name }) => [url, name])),
    });
    const worker = makeDiagnosisWorker({
      ...{ database, partitions, recordings, incidents, now },
      log: loggerOf(app),
    });

    serve(app, api.postRecording, async ({ actor, params, body }) => {
      const { row } = await findWorkspace(database.db, actor, params.workspace, 'workspace:connect');
      const isNew = await recordings.addBatch(actor.userId, row.id, body);
      if (isNew && isNoteworthy(body)) await incidents.explain(body.id);
      return { incidents: await incidents.recent(body.id) };
    });
    serveAgent(app, api.postAgentConditions, ({ actor, body }) =>
      recordings.addConditions(actor.workspaceId, body),
    );
    serve(app, api.listIncidents, async ({ actor, query: { workspace, ...query } }) => {
      const found =
        workspace === undefined
          ? undefined
          : await findWorkspace(database.db, actor, workspace, 'workspace:connect');
      return incidents.list({ userId: actor.userId, workspaceId: found?.row.id }, query);
    });

    app.decorate('diagnosis', { explainDue: worker.runOnce });
    app.onStart(async () => worker.start());
    app.addHook('preClose', () => worker.stop());
    app.addHook('onClose', () => recordings.settled());
  },
  { name: 'diagnosis', dependencies: ['database', 'http', 'identity', 'satellites', 'workspaces'] },
);

declare module 'fastify' {
  interface FastifyInstance {
    /** Explains the recordings that are due, for tests. */
    readonly diagnosis: { explainDue(): Promise<void> };
  }
}
