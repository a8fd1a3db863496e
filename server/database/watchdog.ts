import type { Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import type { Logger } from '../log.ts';
import type { Database } from './pool.ts';

/** How often the database is asked for a sign of life. */
const checkIntervalMs = 1_000;
/** After so many looks without an answer it counts as silent: about as many seconds. */
const maxMissedChecks = 4;

/**
 * Breaks the pool's connections when the database falls silent: a machine that hangs or a network that
 * swallows packets ends no connection, and every query would wait for ever where it could say 503. A
 * query may take as long as it likes, for as long as the database answers another connection meanwhile.
 * Returns the way to stop.
 */
export function watchDatabase(database: Database, log: Logger): () => Promise<void> {
  const { pool, url } = database;
  const ending = new AbortController();
  const pause = () =>
    delay(checkIntervalMs, undefined, { signal: ending.signal, ref: false }).catch(() => {});
  const clients = new Set<pg.PoolClient>();
  const add = (client: pg.PoolClient) => void clients.add(client);
  const remove = (client: pg.PoolClient) => void clients.delete(client);
  pool.on('connect', add);
  pool.on('remove', remove);
  let silent = false;

  /** Whether `answer` comes in time. Counted in looks: a process that stood still itself blames nobody. */
  async function settlesInTime(answer: Promise<unknown>): Promise<boolean> {
    let settled = false;
    const end = answer.then(
      () => (settled = true),
      () => (settled = true),
    );
    for (let look = 0; look < maxMissedChecks && !settled && !ending.signal.aborted; look++)
      await Promise.race([end, pause()]);
    return settled || ending.signal.aborted;
  }

  function destroyConnections(): void {
    if (!silent) log.error('the database does not answer; its connections are broken off');
    silent = true;
    const error = Object.assign(new Error('the database fell silent'), { code: 'ETIMEDOUT' });
    // With an error, so that whoever has the connection hears of it; `end()` would say nothing to them.
    for (const client of clients)
      (client as unknown as { connection: { stream: Socket } }).connection.stream.destroy(error);
  }

  /** Asks on one connection until it breaks or there is no answer. */
  async function probe(): Promise<void> {
    const client = new pg.Client({ connectionString: url, keepAlive: true, application_name: 'cde-watch' });
    client.on('error', () => {});
    try {
      const connecting = client.connect();
      if (!(await settlesInTime(connecting))) return destroyConnections();
      await connecting;
      while (!ending.signal.aborted) {
        const query = client.query('SELECT 1');
        if (!(await settlesInTime(query))) return destroyConnections();
        await query;
        if (silent) log.warn('the database answers again');
        silent = false;
        await pause();
      }
    } finally {
      // One that never got as far as connecting would wait for a goodbye.
      (client as unknown as { connection: { stream: Socket } }).connection.stream.destroy();
    }
  }

  const watching = (async () => {
    while (!ending.signal.aborted) {
      await probe().catch((error) => log.debug({ err: error }, 'the database cannot be watched'));
      await pause();
    }
  })();

  return async () => {
    ending.abort();
    pool.off('connect', add);
    pool.off('remove', remove);
    await watching;
  };
}
