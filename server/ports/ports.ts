import { makePortGateway } from '@cde/satellite/ports/gateway.ts';
import { makePortSessions } from '@cde/satellite/ports/sessions.ts';
import type { Config } from '../config.ts';
import type { SessionOpener } from '../connections/session-opener.ts';
import type { Database } from '../database/pool.ts';
import type { Auth } from '../http/actor.ts';
import { toProblem } from '../http/serve.ts';
import type { Keys } from '../identity/keys.ts';
import type { Logger } from '../log.ts';
import type { PortLookup } from './authorize.ts';
import { type Deps, makeNameOpener, ownSite, routeByName } from './by-name.ts';
import { makePathOpener, routeByPath } from './by-path.ts';
import type { PortSite } from './names.ts';
import { makePasses } from './passes.ts';
import type { FoundPort } from './store.ts';

/** Composes the proxy for workspace ports, and the routing for satellites that serve ports. */
export function makePorts(options: {
  access: PortLookup;
  config: Config;
  database: Database;
  gate: Auth;
  keys: Keys;
  openSession: SessionOpener;
  /** The sites of satellites that serve ports. */
  sites: () => Promise<PortSite[]>;
  log: Logger;
  now: () => Date;
}) {
  const { config, now } = options;
  const passes = makePasses(options.keys.derive('port passes'), now);
  const deps: Deps = { ...options, passes };
  const own = ownSite(config);
  const gateway = makePortGateway<FoundPort>({
    // By name first: under a port's own name only one path is ours.
    authorizers: [...(own ? [routeByName(deps, own)] : []), routeByPath({ ...options, passes })],
    sessions: makePortSessions(
      async ({ owner, workspaceId }) => (await options.openSession(owner, workspaceId)).session,
      ({ workspaceId }) => workspaceId,
    ),
    trustProxy: config.trustProxy,
    toProblem,
    log: options.log,
  });
  return {
    gateway,
    routeAt: (site: PortSite) => routeByName(deps, site),
    openByName: makeNameOpener(deps, async () => [...(own ? [own] : []), ...(await options.sites())]),
    openByPath: makePathOpener(deps),
  };
}
