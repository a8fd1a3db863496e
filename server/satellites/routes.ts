import { Problem } from '@cde/api/problem.ts';
import * as api from '@cde/api/satellites.ts';
import type { FastifyInstance } from 'fastify';
import type { Config } from '../config.ts';
import { serve, serveSatellite } from '../http/serve.ts';
import type { Keys } from '../identity/keys.ts';
import { checkSatelliteAddress } from './addresses.ts';
import { heartbeatEveryMs, type SatelliteStore, webSettings } from './store.ts';

export function satelliteRoutes(
  app: FastifyInstance,
  {
    store,
    keys,
    config,
    revocation,
  }: {
    store: SatelliteStore;
    keys: Pick<Keys, 'tickets'>;
    config: Pick<Config, 'accessUrl'>;
    /** Part of the connections' AccessRevocation, which is above this room. */
    revocation: { findRevoked(users: readonly string[]): Promise<string[]> };
  },
): void {
  // With port 0 the access URL is known only once the server listens.
  const common = () => ({
    ticketKeys: [keys.tickets.publicKey],
    dashboard: new URL(config.accessUrl).origin,
  });

  serve(app, api.listSatellites, async () => ({ items: await store.list() }));
  serve(app, api.getSatellite, ({ params }) => store.show(params.satellite));
  serve(app, api.addSatellite, (input) => store.add(input, input.body));
  serve(app, api.drainSatellite, (input) =>
    store.setDraining(input, input.params.satellite, input.body.draining),
  );
  serve(app, api.setSatelliteWeb, (input) => store.setWeb(input, input.params.satellite, input.body.web));
  serve(app, api.removeSatellite, (input) => store.remove(input, input.params.satellite));

  serveSatellite(app, api.registerSatellite, async ({ actor, body }) => {
    await checkSatelliteAddress(body, config.accessUrl);
    const row = await store.register(actor.satelliteId, body);
    if (!row) throw removed(actor.name);
    return {
      id: row.id,
      name: row.name,
      region: row.region,
      drain: row.draining,
      web: webSettings(row),
      ...common(),
      heartbeatEveryMs,
    };
  });
  serveSatellite(app, api.postSatelliteHeartbeat, async ({ actor, body }) => {
    const row = await store.heartbeat(actor.satelliteId, body);
    if (!row) throw removed(actor.name);
    return {
      drain: row.draining,
      web: webSettings(row),
      ...common(),
      endUsers: await revocation.findRevoked(body.users),
    };
  });
}

function removed(name: string): Problem {
  return new Problem('token-invalid', `The satellite ${name} was removed.`);
}
