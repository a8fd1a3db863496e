import type { Config } from '../config.ts';
import type { Opener } from '../connections/open.ts';
import type { Database } from '../database/pool.ts';
import type { Gate } from '../http/actor.ts';
import type { Keys } from '../identity/keys.ts';
import type { Logger } from '../log.ts';
import type { Access } from './access.ts';
import { judgeByName, judgeOpen } from './by-name.ts';
import { judgeByPath } from './by-path.ts';
import { makePortGateway } from './gateway.ts';
import { makePasses } from './passes.ts';
import { makePortSessions } from './sessions.ts';

/** The proxy of workspaces' ports, put together. */
export function makePorts(options: {
  access: Access;
  config: Config;
  database: Database;
  gate: Gate;
  keys: Keys;
  openSession: Opener;
  log: Logger;
  now: () => Date;
}) {
  const { config, now } = options;
  const passes = makePasses(options.keys.derive('port passes'), now);
  const deps = { ...options, passes };
  return makePortGateway({
    // The name first: on a port's own, no path is ours but one.
    judges: [judgeByName(deps), judgeOpen(deps), judgeByPath(deps)],
    sessions: makePortSessions(options.openSession),
    trustProxy: config.trustProxy,
    log: options.log,
  });
}
