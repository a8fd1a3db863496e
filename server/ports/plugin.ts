import type { PortGateway } from '@cde/satellite/ports/gateway.ts';
import fp from 'fastify-plugin';
import { loggerOf } from '../log.ts';
import { makePortLookup } from './authorize.ts';
import { makePorts } from './ports.ts';
import { portRoutes } from './routes.ts';
import { portOpenRoutes, portVisitRoutes, siteOf } from './visits.ts';

declare module 'fastify' {
  interface FastifyInstance {
    /** Takes requests to shared ports before Fastify sees them. */
    readonly portGateway: PortGateway;
  }
}

/** Shared ports of workspaces. */
export const portsPlugin = fp(
  async (app) => {
    const { auth, config, database, keys, now, issueTicket, openSession, connectionPolicy: policy } = app;
    const { store } = app.satellites;
    const access = makePortLookup(database, now);
    portRoutes(app, { access, config, database, now, policy, satellites: store.listWebSatellites });
    const { gateway, routeAt, ...openers } = makePorts({
      access,
      config,
      database,
      gate: auth,
      keys,
      openSession,
      sites: async () =>
        (await store.listWebSatellites()).flatMap((one) => siteOf(one, config.accessUrl) ?? []),
      log: loggerOf(app),
      now,
    });
    app.decorate('portGateway', gateway);
    app.addHook('preClose', async () => gateway.close());
    portOpenRoutes(app, openers);
    portVisitRoutes(app, {
      judge: routeAt,
      webSatellite: store.findWebSatellite,
      issueTicket,
      accessUrl: config.accessUrl,
    });
  },
  { name: 'ports', dependencies: ['http', 'identity', 'satellites', 'connections'] },
);
