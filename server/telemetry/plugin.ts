import { monitorEventLoopDelay } from 'node:perf_hooks';
import fp from 'fastify-plugin';
import { collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import { loggerOf } from '../log.ts';

/** The goal for event loop delay; ten times this is logged. */
const maxLoopDelayMs = 10;
const sampleIntervalMs = 10_000;

declare module 'fastify' {
  interface FastifyInstance {
    /** The registry of `/metrics`; other rooms add their own. */
    readonly metrics: Registry;
  }
}

/** `/metrics` in Prometheus' text format: requests, event loop, database pool, workspaces by status, builds by result. */
export const telemetryPlugin = fp(
  async (app) => {
    const { database } = app;
    const log = loggerOf(app);
    const registry = new Registry();
    collectDefaultMetrics({ register: registry });
    const requests = new Histogram({
      name: 'cde_http_request_seconds',
      help: 'Request duration, by route',
      labelNames: ['method', 'route', 'status'],
      buckets: [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5],
      registers: [registry],
    });
    app.addHook('onResponse', async (request, reply) => {
      // By route instead of URL, so that a scan of random paths does not create a series for each.
      const route = request.routeOptions.url ?? 'none';
      requests.observe(
        { method: request.method, route, status: String(reply.statusCode) },
        reply.elapsedTime / 1000,
      );
    });
    new Gauge({
      name: 'cde_database_connections',
      help: 'Database pool connections, by use',
      labelNames: ['use'],
      registers: [registry],
      collect() {
        this.set({ use: 'idle' }, database.pool.idleCount);
        this.set({ use: 'busy' }, database.pool.totalCount - database.pool.idleCount);
        this.set({ use: 'waiting' }, database.pool.waitingCount);
      },
    });
    new Gauge({
      name: 'cde_workspaces',
      help: 'Workspaces, by status',
      labelNames: ['status'],
      registers: [registry],
      async collect() {
        const { rows } = await database.pool.query<{ status: string; count: number }>(
          "SELECT status, count(*)::int AS count FROM workspaces WHERE status <> 'deleted' GROUP BY status",
        );
        this.reset();
        for (const row of rows) this.set({ status: row.status }, row.count);
      },
    });
    new Gauge({
      name: 'cde_builds_last_hour',
      help: 'Builds that finished in the last hour, by transition and status',
      labelNames: ['transition', 'status'],
      registers: [registry],
      async collect() {
        const { rows } = await database.pool.query<{ transition: string; status: string; count: number }>(
          "SELECT transition, status, count(*)::int AS count FROM builds WHERE finished_at > now() - interval '1 hour' GROUP BY 1, 2",
        );
        this.reset();
        for (const row of rows) this.set({ transition: row.transition, status: row.status }, row.count);
      },
    });

    const delay = monitorEventLoopDelay({ resolution: 5 });
    delay.enable();
    const sampler = setInterval(() => {
      const worst = delay.max / 1e6 - 5;
      if (worst > maxLoopDelayMs * 10)
        log.warn(
          { worstMs: Math.round(worst), p99Ms: Math.round(delay.percentile(99) / 1e6) },
          'the event loop was blocked',
        );
      delay.reset();
    }, sampleIntervalMs);
    sampler.unref();

    app.get('/metrics', {
      schema: { hide: true },
      onRequest: async (request) => {
        request.actor = await app.auth.authenticate(request.headers, {
          method: request.method,
          ip: request.ip,
        });
        app.auth.authorize(request.actor, 'metrics:read');
      },
      handler: async (_request, reply) => reply.type(registry.contentType).send(await registry.metrics()),
    });
    app.decorate('metrics', registry);
    app.addHook('preClose', async () => {
      clearInterval(sampler);
      delay.disable();
    });
  },
  { name: 'telemetry', dependencies: ['base', 'http', 'identity'] },
);
