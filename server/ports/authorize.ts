import { PortLevel } from '@cde/api/ports.ts';
import { makeRequestCache } from '@cde/satellite/ports/request-cache.ts';
import type { Database } from '../database/pool.ts';
import type { UserActor } from '../http/actor.ts';
import { isAllowed } from '../identity/auth/authorize.ts';
import type { PortRef } from './names.ts';
import { type FoundPort, findPort, findSession } from './store.ts';

/** `level`, lowered to the maximum that an administrator allows. */
export function capLevel(level: PortLevel | null, max: PortLevel | 'off'): PortLevel | null {
  if (level === null || max === 'off') return null;
  const { options } = PortLevel;
  return options[Math.min(options.indexOf(level), options.indexOf(max))]!;
}

/** Whether `who` can open the port. `sign-in`: not anonymously, but possibly after signing in. */
export function authorizePort(
  port: FoundPort | null,
  who: UserActor | null,
  max: PortLevel | 'off',
): 'allow' | 'sign-in' | 'deny' {
  const level = port && capLevel(port.level, max);
  if (level === 'public') return 'allow';
  // Anonymous visitors must not learn which ports and workspaces exist.
  if (!who) return 'sign-in';
  if (!port || !level) return 'deny';
  if (level === 'signed-in') return 'allow';
  return isAllowed(who, 'workspace:connect', { ownerId: port.owner.userId }) ? 'allow' : 'deny';
}

/** Looks up ports and browser sessions, cached for two seconds. */
export function makePortLookup(database: Database, now: () => Date) {
  const ports = makeRequestCache<FoundPort | null>();
  const sessions = makeRequestCache<UserActor | null>();
  return {
    port: (ref: PortRef) => ports.read(JSON.stringify(ref), () => findPort(database, ref)),
    /** Clears the cache after a share changed at this replica. Others catch up within two seconds. */
    forgetPorts: ports.forget,
    session: (id: string) => sessions.read(id, () => findSession(database, id, now())),
  };
}

export type PortLookup = ReturnType<typeof makePortLookup>;
