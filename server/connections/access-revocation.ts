import { checkAgentUsers, watchAgentUsers } from '@cde/api/agent.ts';
import { watchSatelliteUsers } from '@cde/api/satellites.ts';
import type { FastifyInstance } from 'fastify';
import type { Database } from '../database/pool.ts';
import type { Bus } from '../events/bus.ts';
import { closeSignal, serveAgent, serveSatellite } from '../http/serve.ts';
import type { Logger } from '../log.ts';

/** How often to poll, in case the bus is silent. The docs promise that sessions end within ten seconds of a suspension. */
const defaultPollMs = 6_000;
/** How long a request is held open. Proxies treat connections that are silent for longer as dead. */
const defaultHoldMs = 25_000;

/** Holds sessions of users, and can end all sessions of one. */
export interface SessionHolder {
  users(): Iterable<string>;
  end(userId: string): void;
}

export interface AccessRevocation {
  /** Ends the holder's sessions of revoked users until the returned function is called. */
  watch(holder: SessionHolder): () => void;
  /** Resolves with the revoked users among `users` as soon as there is one, or with none after 25 s. */
  waitForRevoked(users: readonly string[], signal: AbortSignal): Promise<string[]>;
  /** The users among `users` whose access is revoked now. */
  findRevoked(users: readonly string[]): Promise<string[]>;
  /** The same, with the names of the others. */
  checkUsers(users: readonly string[]): Promise<{ endUsers: string[]; usernames: Record<string, string> }>;
  /** Polls the database now. Rejects with its error. */
  check(): Promise<void>;
  /** Resolves everything that waits. */
  close(): void;
}

/**
 * Ends the sessions of users who were suspended or deleted; a session outlives its ticket, but not its user. Serves
 * this replica's satellite, the other satellites, and agents (only they see direct paths). The bus announces a
 * suspension at once; a poll of the database every 6 s, shared by all waiters, backs it up. While the database is
 * unreachable no session is ended.
 */
export function makeAccessRevocation(options: {
  database: Database;
  bus: Pick<Bus, 'subscribeRevocations'>;
  log: Logger;
  pollMs?: number;
  holdMs?: number;
}): AccessRevocation {
  const { database, log, holdMs = defaultHoldMs } = options;
  const holders = new Set<SessionHolder>();
  const pending = new Set<() => void>();
  let running: Promise<void> | null = null;
  let next: Promise<void> | null = null;
  let closed = false;

  async function findRevoked(users: readonly string[]): Promise<string[]> {
    if (users.length === 0) return [];
    // One array, because a statement has at most 65,535 parameters.
    const { rows } = await database.pool.query<{ id: string }>(
      `SELECT id::text FROM unnest($1::uuid[]) AS given (id)
        WHERE NOT EXISTS (SELECT FROM users WHERE users.id = given.id AND status = 'active')`,
      [users],
    );
    return rows.map(({ id }) => id);
  }

  async function checkUsers(
    ids: readonly string[],
  ): Promise<{ endUsers: string[]; usernames: Record<string, string> }> {
    const { rows } = await database.pool.query<{ id: string; username: string }>(
      `SELECT given.id, users.username FROM unnest($1::text[]) AS given (id)
         JOIN users ON users.id = given.id::uuid AND users.status = 'active'`,
      [ids],
    );
    const usernames = Object.fromEntries(rows.map(({ id, username }) => [id, username]));
    return { endUsers: ids.filter((id) => !(id in usernames)), usernames };
  }

  async function poll(): Promise<void> {
    const users = new Set<string>();
    for (const holder of holders) for (const userId of holder.users()) users.add(userId);
    if (users.size === 0) return;
    const revoked = new Set(await findRevoked([...users]));
    if (revoked.size === 0) return;
    for (const holder of [...holders])
      for (const userId of [...holder.users()]) if (revoked.has(userId)) holder.end(userId);
  }

  /** Runs one poll at a time. Calls during a poll share the next one, because the running one may have missed their change. */
  function check(): Promise<void> {
    if (!running) {
      running = poll().finally(() => {
        running = null;
      });
      return running;
    }
    next ??= running
      .catch(() => {})
      .then(() => {
        next = null;
        return check();
      });
    return next;
  }
  const checkQuietly = () =>
    void check().catch((error) => log.debug({ err: error }, 'could not look up the users of open sessions'));

  const unsubscribe = options.bus.subscribeRevocations(checkQuietly);
  const timer = setInterval(checkQuietly, options.pollMs ?? defaultPollMs);
  timer.unref();

  function watch(holder: SessionHolder): () => void {
    holders.add(holder);
    return () => holders.delete(holder);
  }

  async function waitForRevoked(users: readonly string[], signal: AbortSignal): Promise<string[]> {
    if (users.length === 0 || signal.aborted || closed) return [];
    const revoked: string[] = [];
    return new Promise((resolve, reject) => {
      const finish = () => {
        clearTimeout(timeout);
        signal.removeEventListener('abort', finish);
        pending.delete(finish);
        unwatch();
        // Does nothing after a rejection.
        resolve(revoked);
      };
      const unwatch = watch({
        users: () => users,
        end(userId) {
          // Resolve after the poll has ended all of them.
          if (revoked.length === 0) queueMicrotask(finish);
          revoked.push(userId);
        },
      });
      const timeout = setTimeout(finish, holdMs);
      signal.addEventListener('abort', finish, { once: true });
      pending.add(finish);
      check().catch((error) => {
        reject(error);
        finish();
      });
    });
  }

  return {
    watch,
    waitForRevoked,
    findRevoked,
    checkUsers,
    check,
    close() {
      closed = true;
      clearInterval(timer);
      unsubscribe();
      for (const finish of [...pending]) finish();
    },
  };
}

/** Lets agents and satellites ask which of their users have lost access. */
export function accessRevocationRoutes(
  app: FastifyInstance,
  revocation: Pick<AccessRevocation, 'waitForRevoked' | 'checkUsers'>,
): void {
  serveAgent(app, checkAgentUsers, ({ body }) => revocation.checkUsers(body.users));
  serveAgent(app, watchAgentUsers, async ({ body, reply }) => ({
    endUsers: await revocation.waitForRevoked(body.users, closeSignal(reply)),
  }));
  serveSatellite(app, watchSatelliteUsers, async ({ body, reply }) => ({
    endUsers: await revocation.waitForRevoked(body.users, closeSignal(reply)),
  }));
}
