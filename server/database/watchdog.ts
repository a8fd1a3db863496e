import type { Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import type { Logger } from '../log.ts';
import type { Database } from './pool.ts';

const checkIntervalMs = 1_000;
/** The database counts as unresponsive after this many checks without an answer: about 4 s. */
const maxMissedChecks = 4;

/**
 * Destroys the pool's connections when the database stops answering. A frozen machine or a network that drops packets
 * closes no connection, so queries would hang instead of failing with 503. Slow queries are unaffected as long as the
 * database answers a second connection. Returns a function that stops the watchdog.
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

  /** Counts checks instead of time, so that a process that was itself suspended does not blame the database. */
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
    if (!silent) log.error('the database does not respond; closing all connections to it');
    silent = true;
    const error = Object.assign(new Error('the database does not respond'), { code: 'ETIMEDOUT' });
    // Destroyed with an error so that waiting queries fail; `end()` would leave them waiting.
    for (const client of clients)
      (client as unknown as { connection: { stream: Socket } }).connection.stream.destroy(error);
  }

  /** Queries on one connection until it breaks or stays unanswered. */
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
        if (silent) log.warn('the database responds again');
        silent = false;
        await pause();
      }
    } finally {
      // `end()` would wait indefinitely on a client that never connected.
      (client as unknown as { connection: { stream: Socket } }).connection.stream.destroy();
    }
  }

  const watching = (async () => {
    while (!ending.signal.aborted) {
      await probe().catch((error) => log.debug({ err: error }, 'the database watchdog cannot connect'));
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
