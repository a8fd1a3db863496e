import { drizzle, type NodePgDatabase } from 'drizzle-orm/node-postgres';
import pg from 'pg';
import * as schema from './schema.ts';

export type Db = NodePgDatabase<typeof schema>;
/** A Db or a transaction, so that a store's functions work in both. */
export type Queryable = Db | Parameters<Parameters<Db['transaction']>[0]>[0];

export interface Database {
  url: string;
  pool: pg.Pool;
  db: Db;
  close(): Promise<void>;
}

/** Opens a connection pool. Connecting times out after 5 s so that a request can fail with 503. */
export function openDatabase(
  url: string,
  options: { max?: number; onError?: (error: Error) => void } = {},
): Database {
  const pool = new pg.Pool({
    connectionString: url,
    max: options.max ?? 20,
    connectionTimeoutMillis: 5_000,
    // A replica that is cut off from its database must notice, because another replica then takes its advisory lock.
    keepAlive: true,
    keepAliveInitialDelayMillis: 10_000,
    // Our statements take milliseconds. One blocked on a lock must not hold a connection indefinitely.
    statement_timeout: 30_000,
    application_name: 'cde',
  });
  // The pool replaces a broken idle connection, but without a listener the error would end the process.
  pool.on('error', (error) => options.onError?.(error));
  // A broken connection in use fails its query; this listener keeps it from ending the process as well.
  pool.on('connect', (client) => client.on('error', (error) => options.onError?.(error)));
  return { url, pool, db: drizzle(pool, { schema }), close: () => pool.end() };
}

/** Whether PostgreSQL's disk is full. */
export const isDatabaseFull = (error: unknown): boolean => postgresError(error)?.code === '53100';

/** Whether PostgreSQL as a whole failed (unreachable, shutting down, out of resources) rather than one statement. */
export function isUnavailable(error: unknown): boolean {
  for (let e = error; e instanceof Error; e = e.cause as Error) {
    const code = (e as NodeJS.ErrnoException).code ?? '';
    if (
      /^(ECONNREFUSED|ECONNRESET|EPIPE|ENOENT|ETIMEDOUT|ENOTFOUND|EHOSTUNREACH|57P0[123]|08\d\d\d|53[123]00)$/.test(
        code,
      )
    )
      return true;
    if (
      /timeout exceeded when trying to connect|timeout expired|Connection terminated|connection is closed|Client was closed|not queryable/i.test(
        e.message,
      )
    )
      return true;
  }
  return false;
}

/** The PostgreSQL error with its SQLSTATE and constraint, which Drizzle wraps in its own. */
function postgresError(error: unknown): pg.DatabaseError | null {
  for (let e = error; e instanceof Error; e = e.cause as Error) if (e instanceof pg.DatabaseError) return e;
  return null;
}

/** Whether `error` is a violation of a unique constraint or index (of `constraint`, if given). */
export function isDuplicate(error: unknown, constraint?: string): boolean {
  const found = postgresError(error);
  return found?.code === '23505' && (constraint === undefined || found.constraint === constraint);
}

/** Whether a value contained what PostgreSQL's text and jsonb cannot store: NUL, or a lone surrogate. */
export function isUnstorable(error: unknown): boolean {
  const found = postgresError(error);
  return (
    found?.code === '22021' ||
    found?.code === '22P05' ||
    (found?.code === '22P02' && /^invalid input syntax for type json/.test(found.message))
  );
}
