import { drizzle, type NodePgDatabase } from 'drizzle-orm/node-postgres';
import pg from 'pg';
import * as schema from './schema.ts';

export type Db = NodePgDatabase<typeof schema>;
/** A Db, or a transaction of it: what a store's functions take. */
export type Queryable = Db | Parameters<Parameters<Db['transaction']>[0]>[0];

export interface Database {
  url: string;
  pool: pg.Pool;
  db: Db;
  close(): Promise<void>;
}

/** Opens a pool. `max` connections; a connection attempt gives up after 5 s so that a request can answer 503. */
export function openDatabase(
  url: string,
  options: { max?: number; onError?: (error: Error) => void } = {},
): Database {
  const pool = new pg.Pool({
    connectionString: url,
    max: options.max ?? 20,
    connectionTimeoutMillis: 5_000,
    // A replica cut off from its database must notice: its advisory lock is then already somebody else's.
    keepAlive: true,
    keepAliveInitialDelayMillis: 10_000,
    // Ours take milliseconds; one stuck behind somebody's lock must not hold a connection for ever.
    statement_timeout: 30_000,
    application_name: 'cde',
  });
  // An idle connection that breaks is replaced by the pool; without a listener the process would end.
  pool.on('error', (error) => options.onError?.(error));
  // And one that breaks while it is lent out tells whoever has it by its failed query.
  pool.on('connect', (client) => client.on('error', (error) => options.onError?.(error)));
  return { url, pool, db: drizzle(pool, { schema }), close: () => pool.end() };
}

/** True when PostgreSQL has no room left on its disk. */
export const isDatabaseFull = (error: unknown): boolean => postgresError(error)?.code === '53100';

/** True for failures of PostgreSQL as a whole (not reached, going down, no room), as against those of a statement. */
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

/** The PostgreSQL error underneath (Drizzle wraps it), with its SQLSTATE and constraint. */
export function postgresError(error: unknown): pg.DatabaseError | null {
  for (let e = error; e instanceof Error; e = e.cause as Error) if (e instanceof pg.DatabaseError) return e;
  return null;
}

/** True when `error` says that a row would break the unique constraint or index `constraint`. */
export function isDuplicate(error: unknown, constraint?: string): boolean {
  const found = postgresError(error);
  return found?.code === '23505' && (constraint === undefined || found.constraint === constraint);
}

/** True when a value holds what PostgreSQL's text and jsonb cannot: NUL, or half of a surrogate pair. */
export function isUnstorable(error: unknown): boolean {
  const found = postgresError(error);
  return (
    found?.code === '22021' ||
    found?.code === '22P05' ||
    (found?.code === '22P02' && /^invalid input syntax for type json/.test(found.message))
  );
}
