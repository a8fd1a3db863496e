import { PortLevel } from '@cde/api/ports.ts';
import { remembered } from '@cde/satellite/ports/remembered.ts';
import type { Database } from '../database/pool.ts';
import type { UserActor } from '../http/actor.ts';
import { isAllowed } from '../identity/authorize.ts';
import type { PortRef } from './names.ts';
import { type FoundPort, findPort, findSession } from './store.ts';

/** `level`, or what is left of it where an administrator allows less. */
export function capLevel(level: PortLevel | null, max: PortLevel | 'off'): PortLevel | null {
  if (level === null || max === 'off') return null;
  const { options } = PortLevel;
  return options[Math.min(options.indexOf(level), options.indexOf(max))]!;
}

/** May they? `sign-in`: not as nobody, but perhaps as somebody. */
export function authorizePort(
  port: FoundPort | null,
  who: UserActor | null,
  max: PortLevel | 'off',
): 'yes' | 'sign-in' | 'no' {
  const level = port && capLevel(port.level, max);
  if (level === 'public') return 'yes';
  // Whoever is not signed in learns nothing of what there is.
  if (!who) return 'sign-in';
  if (!port || !level) return 'no';
  if (level === 'signed-in') return 'yes';
  return isAllowed(who, 'workspace:connect', { ownerId: port.owner.userId }) ? 'yes' : 'no';
}

/** Looks up ports and browser sessions, each at most once in two seconds. */
export function makePortLookup(database: Database, now: () => Date) {
  const ports = remembered<FoundPort | null>();
  const sessions = remembered<UserActor | null>();
  return {
    port: (place: PortRef) => ports.read(JSON.stringify(place), () => findPort(database, place)),
    /** A share was changed here: what is remembered may be old. Other replicas find out in two seconds. */
    forgetPorts: ports.forget,
    session: (id: string) => sessions.read(id, () => findSession(database, id, now())),
  };
}

export type PortLookup = ReturnType<typeof makePortLookup>;
