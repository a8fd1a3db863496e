import { startNetcheck } from '@cde/api/satellites.ts';
import type { FastifyInstance } from 'fastify';
import { serve } from '../http/serve.ts';
import type { Keys } from '../identity/keys.ts';
import type { SatelliteRegistry } from '../satellites/registry.ts';
import { version } from '../version.ts';

/** Enough to probe every satellite in turn, twice. */
const tokenLifetimeMs = 10 * 60_000;

/** `POST /netcheck`: the satellites to measure, and a token for probing them. */
export function netcheckRoutes(
  app: FastifyInstance,
  deps: { keys: Pick<Keys, 'tickets'>; satellites: SatelliteRegistry['forClients']; now: () => Date },
): void {
  serve(app, startNetcheck, async ({ actor }) => {
    const exp = Math.floor((deps.now().getTime() + tokenLifetimeMs) / 1000);
    return {
      token: await deps.keys.tickets.signProbeToken({ userId: actor.userId, exp }),
      expiresAt: new Date(exp * 1000).toISOString(),
      version,
      satellites: (await deps.satellites(null)).map(({ id: _, ...place }) => place),
    };
  });
}
