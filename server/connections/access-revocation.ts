import { checkAgentUsers, watchAgentUsers } from '@cde/api/agent.ts';
import { watchSatelliteUsers } from '@cde/api/satellites.ts';
import type { FastifyInstance, FastifyReply } from 'fastify';
import type { Database } from '../database/pool.ts';
import type { Bus } from '../events/bus.ts';
import { serveAgent, serveSatellite } from '../http/serve.ts';
import type { Logger } from '../log.ts';

/** How long a session may outlive the suspension of its user when the bus is silent: under the ten seconds that are promised. */
const defaultEveryMs = 6_000;
/** Longer, and a proxy may take the connection for dead. */
const defaultHoldMs = 25_000;

/** Somebody who has sessions of users, and ends those of whom it is told. */
export interface SessionHolder {
  users(): Iterable<string>;
  end(userId: string): void;
}

export interface AccessRevocation {
  /** From now on until the returned function is called. */
  watch(watcher: SessionHolder): () => void;
  /** Those of the users who may have no sessions: as soon as there is one, at the latest (then none) after 25 s. */
  waitForRevoked(users: readonly string[], left: AbortSignal): Promise<string[]>;
  /** Those of the users who may have no sessions, at this moment. */
  findRevoked(users: readonly string[]): Promise<string[]>;
  /** Looks now. Rejects with the database's error. */
  check(): Promise<void>;
  /** Lets all go who wait. */
  close(): void;
}

/**
 * A session once open outlives its ticket, but not its user. Whoever carries sessions asks here: this replica's
 * satellite, the satellites elsewhere, and the agents, which alone see direct paths. They hear of a suspension at once,
 * by the bus; behind it stands a look at the database every 6 s, one for all who wait. A database that is away decides nothing.
 */
export function makeAccessRevocation(options: {
  database: Database;
  bus: Pick<Bus, 'subscribeRevocations'>;
  log: Logger;
  everyMs?: number;
  holdMs?: number;
}): AccessRevocation {
  const { database, log, holdMs = defaultHoldMs } = options;
  const watchers = new Set<SessionHolder>();
  const holds = new Set<() => void>();
  let checking: Promise<void> | null = null;
  let again: Promise<void> | null = null;
  let closed = false;

  async function findRevoked(users: readonly string[]): Promise<string[]> {
    // One array rather than as many parameters: a statement has no more than 65,535 of these.
    const { rows } = await database.pool.query<{ id: string }>(
      `SELECT id::text FROM unnest($1::uuid[]) AS asked (id)
        WHERE NOT EXISTS (SELECT FROM users WHERE users.id = asked.id AND status = 'active')`,
      [users],
    );
    return rows.map(({ id }) => id);
  }

  async function look(): Promise<void> {
    const asked = new Set<string>();
    for (const watcher of watchers) for (const userId of watcher.users()) asked.add(userId);
    if (asked.size === 0) return;
    const waitForRevoked = new Set(await findRevoked([...asked]));
    if (waitForRevoked.size === 0) return;
    for (const watcher of [...watchers])
      for (const userId of [...watcher.users()]) if (waitForRevoked.has(userId)) watcher.end(userId);
  }

  /** One look at a time; who comes meanwhile shares the next, which sees what they have seen. */
  function check(): Promise<void> {
    if (!checking) {
      checking = look().finally(() => {
        checking = null;
      });
      return checking;
    }
    again ??= checking
      .catch(() => {})
      .then(() => {
        again = null;
        return check();
      });
    return again;
  }
  const checkQuietly = () =>
    void check().catch((error) => log.debug({ err: error }, 'the users of open sessions were not looked up'));

  const unsubscribe = options.bus.subscribeRevocations(checkQuietly);
  const timer = setInterval(checkQuietly, options.everyMs ?? defaultEveryMs);
  timer.unref();

  function watch(watcher: SessionHolder): () => void {
    watchers.add(watcher);
    return () => watchers.delete(watcher);
  }

  async function waitForRevoked(users: readonly string[], left: AbortSignal): Promise<string[]> {
    if (users.length === 0 || left.aborted || closed) return [];
    const told: string[] = [];
    return new Promise((resolve, reject) => {
      const finish = () => {
        clearTimeout(limit);
        left.removeEventListener('abort', finish);
        holds.delete(finish);
        unwatch();
        // After a rejection this does nothing.
        resolve(told);
      };
      const unwatch = watch({
        users: () => users,
        end(userId) {
          // All of them who are found in one look.
          if (told.length === 0) queueMicrotask(finish);
          told.push(userId);
        },
      });
      const limit = setTimeout(finish, holdMs);
      left.addEventListener('abort', finish, { once: true });
      holds.add(finish);
      check().catch((error) => {
        reject(error);
        finish();
      });
    });
  }

  return {
    watch,
    waitForRevoked: waitForRevoked,
    findRevoked: findRevoked,
    check,
    close() {
      closed = true;
      clearInterval(timer);
      unsubscribe();
      for (const finish of [...holds]) finish();
    },
  };
}

/** Serves agents and satellites who ask whose sessions are to end. */
export function accessRevocationRoutes(
  app: FastifyInstance,
  revocation: Pick<AccessRevocation, 'waitForRevoked' | 'findRevoked'>,
): void {
  serveAgent(app, checkAgentUsers, async ({ body }) => ({
    endUsers: await revocation.findRevoked(body.users),
  }));
  serveAgent(app, watchAgentUsers, async ({ body, reply }) => ({
    endUsers: await revocation.waitForRevoked(body.users, gone(reply)),
  }));
  serveSatellite(app, watchSatelliteUsers, async ({ body, reply }) => ({
    endUsers: await revocation.waitForRevoked(body.users, gone(reply)),
  }));
}

/** Aborted when nobody waits for the answer any more. */
function gone(reply: FastifyReply): AbortSignal {
  const controller = new AbortController();
  reply.raw.once('close', () => controller.abort());
  return controller.signal;
}
