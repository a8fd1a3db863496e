import { dayMs } from '@cde/api/durations.ts';
import fp from 'fastify-plugin';
import { hubPlugin } from '../events/plugin.ts';
import { isAllowed } from '../identity/auth/authorize.ts';
import type { AlertBody } from '../idle/alerts.ts';
import { webhookTask } from '../idle/webhook.ts';
import { loggerOf } from '../log.ts';
import { makeAgents } from './agents.ts';
import { removeOldLogs } from './builds/build-log-sweep.ts';
import { makeWaker } from './queue.ts';
import { makeReconcile } from './reconcile.ts';
import { workspaceRoutes } from './routes.ts';
import { makeSweep } from './sweep.ts';
import { makeTopicReader } from './topic-reader.ts';
import { makeReconcileWorker } from './worker.ts';

/** Workspaces, their builds and agents, and the queue that reconciles them. */
export const workspacesPlugin = fp(
  async (app) => {
    const { config, database, bus, keys, now, providers, replica } = app;
    const log = loggerOf(app);
    const homeGraceMs = config.homeGraceDays * dayMs;
    workspaceRoutes(app, {
      database,
      bus,
      now,
      providers,
      foreignUpdates: config.foreignUpdates === 'on',
      agents: makeAgents({
        database,
        bus,
        now,
        keys,
        providers,
        satellites: app.satellites.forAgents,
        policy: app.connectionPolicy,
        reports: app.idle.reports,
        cancelIdleStop: app.idle.cancelStop,
      }),
    });
    await app.register(hubPlugin, {
      reader: makeTopicReader(database, now, (actor, ownerId) =>
        isAllowed(actor, 'workspace:read', { ownerId }),
      ),
    });

    const wake = makeWaker(database, log);
    // A lost agent is checked at once instead of after its next missed report.
    app.onAgentDisconnect(wake);
    const worker = makeReconcileWorker({
      database,
      replica,
      log,
      concurrency: config.concurrency,
      reconcile: makeReconcile({
        database,
        bus,
        log,
        now,
        startedAt: now(),
        providers,
        agentToken: keys.agentToken,
        // The access URL first, because replicas and their addresses come and go.
        agentUrl: async () =>
          [...(config.replicaUrl ? [config.accessUrl] : []), ...(await replica.urls())].join(','),
        homeGraceMs,
        shutdownScript: app.idle.shutdownScript,
        lifecycle: app.idle.lifecycle,
      }),
      tasks: {
        [webhookTask]: (payload) => {
          const job = payload as { eventId: string } | { alert: AlertBody };
          return 'alert' in job ? app.idle.deliverAlert(job.alert) : app.idle.deliver(job.eventId);
        },
      },
    });
    app.onStart(async () => {
      for (const provider of providers.values()) provider.onChange(wake);
      await worker.start();
    });
    app.addHook('onClose', () => worker.stop());

    app.onSweep(async () => void (await removeOldLogs(database, config.buildLogs)));
    const sweep = makeSweep({ database, providers, homeGraceMs, now, log, afterEach: app.sweep });
    app.onStart(() => sweep.start());
    app.addHook('preClose', async () => sweep.stop());
  },
  {
    name: 'workspaces',
    dependencies: ['database', 'events', 'http', 'identity', 'providers', 'satellites', 'idle'],
  },
);
