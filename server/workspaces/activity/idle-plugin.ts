import { eq } from 'drizzle-orm';
import fp from 'fastify-plugin';
import { Counter, Gauge } from 'prom-client';
import { builds } from '../../database/schema.ts';
import { removeOldActivity } from '../../idle/activity-store.ts';
import { type AlertBody, makeAlertDelivery } from '../../idle/alerts.ts';
import { makePolicyResolver } from '../../idle/effective.ts';
import { makeLifecycle, type WorkspaceLifecycle } from '../../idle/lifecycle.ts';
import { makeStopSections, type ShutdownScript } from '../../idle/policy-source.ts';
import { cleanupReportRoute, sumUpDays } from '../../idle/report.ts';
import { type ActivityReports, type IdleDeps, makeActivityReports } from '../../idle/reports.ts';
import { cleanupSettingsRoutes, makeCleanupSettings } from '../../idle/settings.ts';
import { makeIdleSweep } from '../../idle/sweep.ts';
import { makeWebhook } from '../../idle/webhook.ts';
import { loggerOf } from '../../log.ts';
import { makeDormancy } from '../unused/dormancy.ts';
import { makeUnusedSweep } from '../unused/unused.ts';
import { makeWorkspaceActivity } from './activity.ts';
import { activityRoutes } from './activity-routes.ts';
import { makeIdleWorker } from './idle-worker.ts';
import { makeScheduledStarts } from './scheduled-starts.ts';
import { makeShutdowns } from './shutdown.ts';

/** It reads all stopped workspaces, and counts in days. */
const unusedIntervalMs = 10 * 60_000;

declare module 'fastify' {
  interface FastifyInstance {
    /** What the other parts of a workspace need of its idle policy. */
    readonly idle: {
      reports: ActivityReports;
      cancelStop: (workspaceId: string) => Promise<void>;
      lifecycle: WorkspaceLifecycle;
      /** The shutdown script of what a build has started. */
      shutdownScript: (buildId: string) => Promise<ShutdownScript | null>;
      /** Posts an event to the webhook. */
      deliver: (eventId: string) => Promise<void>;
      /** Posts what is wrong with the installation to the webhook. */
      deliverAlert: (alert: AlertBody) => Promise<void>;
      /** One sweep now; null if another replica is at it. For tests. */
      sweep: ReturnType<typeof makeIdleWorker>['runOnce'];
    };
  }
}

/** Stops idle workspaces, and answers why the others are awake. */
export const idlePlugin = fp(
  async (app) => {
    const { config, database, bus, keys, now, metrics } = app;
    const log = loggerOf(app);
    const stopSection = makeStopSections(database.db);
    const settings = makeCleanupSettings({ database, keys, now, accessUrl: () => config.accessUrl });
    const resolver = makePolicyResolver({ now });
    const deps: IdleDeps = {
      database,
      bus,
      now,
      stopSection,
      bounds: settings.read,
      boundsChangedAt: settings.changedAt,
      resolve: resolver.resolve,
    };
    const reports = makeActivityReports(deps);
    const shutdownScript = async (buildId: string) => {
      const [build] = await database.db
        .select({ version: builds.templateVersionId })
        .from(builds)
        .where(eq(builds.id, buildId));
      return build ? (await stopSection(build.version)).shutdown : null;
    };
    const shutdowns = makeShutdowns({ database, bus, log, now, reports, shutdownScript });
    const sweep = makeIdleSweep({ ...deps, log, requestStop: shutdowns.requestStop });
    const starts = makeScheduledStarts({ ...deps, log, holidays: resolver.holidays });
    const lifecycle = makeLifecycle({ now, nextStart: starts.next });
    const dormancy = makeDormancy({ ...deps, log });
    const unused = makeUnusedSweep({ ...deps, log });
    const activities = makeWorkspaceActivity({ ...deps, nextStart: starts.next, dormancy, unused });
    activityRoutes(app, { database, activities, shutdowns, sweep, unused });
    cleanupSettingsRoutes(app, { settings });
    cleanupReportRoute(app, { database, now });
    const deliverAlert = makeAlertDelivery({ settings, now, accessUrl: () => config.accessUrl });
    const deliver = makeWebhook({ database, settings, now, accessUrl: () => config.accessUrl });

    const stops = new Counter({
      name: 'cde_cleanup_stops_total',
      help: 'Stops that cleanup has decided; agents can veto them',
      registers: [metrics],
    });
    const started = new Counter({
      name: 'cde_cleanup_starts_total',
      help: 'Workspaces started by their schedules',
      registers: [metrics],
    });
    const blocked = new Gauge({
      name: 'cde_cleanup_blocked',
      help: 'Workspaces that are due to stop and do not: held by the brake, or without a report of their agent; deletions held by the brake',
      labelNames: ['by'],
      registers: [metrics],
    });
    const handled = new Counter({
      name: 'cde_cleanup_unused_total',
      help: 'Workspaces that no person uses, by what cleanup did to them',
      labelNames: ['action'],
      registers: [metrics],
    });
    let unusedAt = Number.NEGATIVE_INFINITY;
    async function sweepUnused(): Promise<void> {
      if (now().getTime() - unusedAt < unusedIntervalMs) return;
      unusedAt = now().getTime();
      handled.inc({ action: 'make-dormant' }, await dormancy.runOnce());
      const result = await unused.runOnce();
      handled.inc({ action: 'archive' }, result.archived);
      handled.inc({ action: 'announce-deletion' }, result.announced);
      handled.inc({ action: 'delete' }, result.deleted);
      blocked.set({ by: 'deletion-brake' }, result.held);
    }
    const worker = makeIdleWorker({
      database,
      log,
      sweep,
      startDue: starts.startDue,
      sweepUnused,
      onResult(result) {
        stops.inc(result.stops);
        started.inc(result.started);
        blocked.set({ by: 'brake' }, result.held);
        blocked.set({ by: 'missing-report' }, result.waiting);
      },
    });
    app.onStart(() => worker.start());
    app.addHook('preClose', () => worker.stop());
    app.onSweep(async () => {
      await sumUpDays(database, now());
      await removeOldActivity(database.db, now());
    });
    app.decorate('idle', {
      reports,
      cancelStop: shutdowns.cancelIdleStop,
      lifecycle,
      shutdownScript,
      deliver,
      deliverAlert,
      sweep: worker.runOnce,
    });
  },
  { name: 'idle', dependencies: ['database', 'events', 'http', 'identity', 'telemetry'] },
);
