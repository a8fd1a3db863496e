import fp from 'fastify-plugin';
import { loggerOf } from '../log.ts';
import { accessRevocationRoutes, makeAccessRevocation } from './access-revocation.ts';
import { makeConnectionAudit } from './connection-audit.ts';
import { netcheckRoutes } from './netcheck.ts';
import { connectionRoutes } from './routes.ts';
import { satelliteTerminalRoutes } from './satellite-terminals.ts';
import { makeSessionOpener } from './session-opener.ts';
import { makeTickets } from './tickets.ts';

declare module 'fastify' {
  interface FastifyInstance {
    readonly accessRevocation: ReturnType<typeof makeAccessRevocation>;
    readonly issueTicket: ReturnType<typeof makeTickets>;
    readonly openSession: ReturnType<typeof makeSessionOpener>;
  }
}

/** Ends the access of suspended and deleted users. Apart from the rest, because satellites need it as well. */
export const accessRevocationPlugin = fp(
  async (app) => {
    const { database, bus } = app;
    const revocation = makeAccessRevocation({ database, bus, log: loggerOf(app) });
    app.decorate('accessRevocation', revocation);
    app.addHook('preClose', async () => revocation.close());
  },
  { name: 'access-revocation', dependencies: ['events'] },
);

/** Tickets and sessions: who can connect to a workspace, and for how long. */
export const connectionsPlugin = fp(
  async (app) => {
    const { config, database, keys, now, relay, satellites, connectionPolicy: policy } = app;
    const log = loggerOf(app);
    const issueTicket = makeTickets({
      ...{ database, keys, now, policy },
      satellites: satellites.forClients,
      recordedAddresses: config.recordingAddresses,
    });
    app.decorate('issueTicket', issueTicket);

    app.accessRevocation.watch({
      users: relay.users,
      end(userId) {
        log.info({ userId }, 'ended the sessions of a suspended or deleted user');
        relay.endUser(userId);
      },
    });
    accessRevocationRoutes(app, app.accessRevocation);

    const openSession = makeSessionOpener(app, issueTicket);
    app.decorate('openSession', openSession);
    netcheckRoutes(app, { keys, satellites: satellites.forClients, now });
    const audit = makeConnectionAudit({ database, now, log });
    connectionRoutes(app, { issueTicket, openSession, audit });
    satelliteTerminalRoutes(app, {
      database,
      keys,
      now,
      store: satellites.store,
      forAgents: satellites.forAgents,
      policy,
      issueTicket,
      config,
      audit,
    });
  },
  { name: 'connections', dependencies: ['http', 'identity', 'access-revocation', 'satellites'] },
);
