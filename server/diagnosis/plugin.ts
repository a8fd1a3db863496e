import * as api from '@cde/api/diagnosis.ts';
import { withKeptAddresses } from '@cde/api/recorded-addresses.ts';
import * as sessionsApi from '@cde/api/sessions.ts';
import fp from 'fastify-plugin';
import { serve, serveAgent } from '../http/serve.ts';
import { loggerOf } from '../log.ts';
import { findWorkspace } from '../workspaces/store.ts';
import { makeHistory } from './history.ts';
import { hostOf, makeIncidents } from './incidents.ts';
import { makeOwnLoad, ownLoadEveryMs } from './own-load.ts';
import { makePartitions } from './partitions.ts';
import { isNoteworthy, makeRecordings } from './recordings.ts';
import { makeDiagnosisWorker } from './worker.ts';

/** What clients and agents see of sessions, and what went wrong in them and why. */
export const diagnosisPlugin = fp(
  async (app) => {
    const { database, now, satellites, config } = app;
    const partitions = makePartitions(database.db);
    const regions = async () =>
      new Map((await satellites.forClients(null)).map(({ url, name, region }) => [url, region || name]));
    const satelliteNames = async () =>
      new Map((await satellites.forClients(null)).map(({ url, name }) => [url, name]));
    const recordings = makeRecordings({ database, partitions, now, regions });
    const incidents = makeIncidents({
      database,
      now,
      satelliteNames,
    });
    const history = makeHistory({
      ...{ database, now, regions, retention: config },
      nameOf: async () => {
        const names = await satelliteNames();
        return (url) => names.get(url) ?? hostOf(url);
      },
    });
    const worker = makeDiagnosisWorker({
      ...{ database, partitions, recordings, incidents, regions, now },
      retention: config,
      log: loggerOf(app),
    });

    serve(app, api.postRecording, async ({ actor, params, body }) => {
      const { row } = await findWorkspace(database.db, actor, params.workspace, 'workspace:connect');
      // A client of an earlier release sends them whole.
      const batch = {
        ...body,
        windows: withKeptAddresses(body.windows, config.recordingAddresses),
        events: withKeptAddresses(body.events, config.recordingAddresses),
      };
      const isNew = await recordings.addBatch(actor.userId, row.id, batch);
      if (isNew && isNoteworthy(batch)) await incidents.explain(body.id);
      return { incidents: await incidents.recent(body.id) };
    });
    serveAgent(app, api.postAgentConditions, ({ actor, body }) =>
      recordings.addConditions(actor.workspaceId, body),
    );
    serve(app, api.listIncidents, async ({ query: { workspace, session, ...query }, ...caller }) => {
      const { actor } = caller;
      if (session !== undefined) {
        await history.view(caller, session);
        return incidents.list({ sessionId: session }, query);
      }
      const found =
        workspace === undefined
          ? undefined
          : await findWorkspace(database.db, actor, workspace, 'workspace:connect');
      return incidents.list({ userId: actor.userId, workspaceId: found?.row.id }, query);
    });

    serve(app, sessionsApi.listSessions, ({ query, ...caller }) => history.list(caller, query));
    serve(app, sessionsApi.getSessionWindows, ({ params, query, ...caller }) =>
      history.windows(caller, params.session, query),
    );
    serve(app, sessionsApi.getNetwork, ({ query, ...caller }) => history.network(caller, query));

    const ownLoad = makeOwnLoad({
      ...{ database, satelliteNames, now },
      url: config.replicaUrl ?? config.accessUrl,
    });
    let timer: NodeJS.Timeout | undefined;
    app.onStart(async () => {
      // A database that cannot be reached is reported by others.
      timer = setInterval(() => void ownLoad.tick().catch(() => {}), ownLoadEveryMs).unref();
    });
    app.addHook('preClose', async () => clearInterval(timer));

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
