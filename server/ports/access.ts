import { PortLevel } from '@cde/api/ports.ts';
import type { Database } from '../database/pool.ts';
import { makeShared } from '../database/shared.ts';
import type { UserActor } from '../http/actor.ts';
import { may } from '../identity/authorize.ts';
import type { PortPlace } from './names.ts';
import { type FoundPort, findPort, findSession } from './store.ts';

/** A page asks for hundreds of files at once; what was true so long ago still counts. */
const rememberMs = 2_000;
/** Answers remembered of one kind: whoever asks for made-up names must not fill the memory. */
const mostRemembered = 5_000;

/** `level`, or what is left of it where an administrator allows less. */
export function limitLevel(level: PortLevel | null, most: PortLevel | 'off'): PortLevel | null {
  if (level === null || most === 'off') return null;
  const { options } = PortLevel;
  return options[Math.min(options.indexOf(level), options.indexOf(most))]!;
}

/** May they? `sign-in`: not as nobody, but perhaps as somebody. */
export function decide(
  port: FoundPort | null,
  who: UserActor | null,
  most: PortLevel | 'off',
): 'yes' | 'sign-in' | 'no' {
  const level = port && limitLevel(port.level, most);
  if (level === 'public') return 'yes';
  // Whoever is not signed in learns nothing of what there is.
  if (!who) return 'sign-in';
  if (!port || !level) return 'no';
  if (level === 'signed-in') return 'yes';
  return may(who, 'workspace:connect', { ownerId: port.owner.userId }) ? 'yes' : 'no';
}

/** Looks up ports and browser sessions, each at most once in two seconds. */
export function makeAccess(database: Database, now: () => Date) {
  const ports = remembered<FoundPort | null>();
  const sessions = remembered<UserActor | null>();
  return {
    port: (place: PortPlace) => ports.read(JSON.stringify(place), () => findPort(database, place)),
    /** A share was changed here: what is remembered may be old. Other replicas find out in two seconds. */
    forgetPorts: ports.forget,
    session: (id: string) => sessions.read(id, () => findSession(database, id, now())),
  };
}

export type Access = ReturnType<typeof makeAccess>;

function remembered<T>() {
  const known = new Map<string, { value: T; until: number }>();
  const shared = makeShared<T>();
  let generation = 0;
  const read = async (key: string, ask: () => Promise<T>): Promise<T> => {
    const found = known.get(key);
    if (found && found.until > performance.now()) return found.value;
    const began = generation;
    const value = await shared(`${began} ${key}`, ask);
    if (began !== generation) return value;
    known.delete(key);
    known.set(key, { value, until: performance.now() + rememberMs });
    if (known.size > mostRemembered) known.delete(known.keys().next().value!);
    return value;
  };
  return {
    read,
    forget() {
      generation += 1;
      known.clear();
    },
  };
}
