import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Logger, runMigrations } from 'graphile-worker';
import type pg from 'pg';

const folder = fileURLToPath(new URL('../../migrations/', import.meta.url));
/** An arbitrary constant that all replicas share: ASCII of `cdemig`. */
const lockKey = 0x6364656d6967n;

export class MigrationError extends Error {
  readonly hint: string;
  constructor(message: string, hint: string) {
    super(message);
    this.name = 'MigrationError';
    this.hint = hint;
  }
}

/** The migrations of this release (`0001_name.sql`), ordered by number. */
export async function knownMigrations(): Promise<{ number: number; name: string; path: string }[]> {
  const files = (await readdir(folder)).filter((file) => /^\d{4}_.*\.sql$/.test(file)).sort();
  return files.map((file) => ({ number: Number(file.slice(0, 4)), name: file, path: join(folder, file) }));
}

/**
 * Migrates the database to this release, forward only, each migration in its own transaction. Replicas that start at the
 * same time wait for each other on an advisory lock. Throws MigrationError if the database is newer than the release.
 * Returns the names of the migrations that ran.
 */
export async function migrate(pool: pg.Pool): Promise<string[]> {
  const known = await knownMigrations();
  const client = await pool.connect();
  try {
    const { rows: version } = await client.query<{ v: number }>(
      "SELECT current_setting('server_version_num')::int AS v",
    );
    if ((version[0]?.v ?? 0) < 150000)
      throw new MigrationError(
        'This PostgreSQL is older than 15.',
        'Point DATABASE_URL at PostgreSQL 15 or newer, or unset it to use the embedded one.',
      );
    // Another replica may be running a long migration while this one waits for the lock.
    await client.query('SET statement_timeout = 0');
    await client.query('SELECT pg_advisory_lock($1)', [lockKey]);
    try {
      await client.query(
        'CREATE TABLE IF NOT EXISTS migrations (number integer PRIMARY KEY, name text NOT NULL, at timestamptz NOT NULL DEFAULT now())',
      );
      const { rows } = await client.query<{ number: number; name: string }>(
        'SELECT number, name FROM migrations ORDER BY number',
      );
      const newest = rows.at(-1);
      const ours = known.at(-1)?.number ?? 0;
      if (newest && newest.number > ours)
        throw new MigrationError(
          `The database is at migration ${newest.name}, which is newer than this release of cde (${ours}).`,
          'Start the version of cde that last used this database, or a newer one. Nothing was changed.',
        );
      const done = new Set(rows.map((row) => row.number));
      const ran: string[] = [];
      for (const migration of known) {
        if (done.has(migration.number)) continue;
        const sql = await readFile(migration.path, 'utf8');
        await client.query('BEGIN');
        try {
          await client.query(sql);
          await client.query('INSERT INTO migrations (number, name) VALUES ($1, $2)', [
            migration.number,
            migration.name,
          ]);
          await client.query('COMMIT');
        } catch (error) {
          await client.query('ROLLBACK');
          throw error;
        }
        ran.push(migration.name);
      }
      // graphile-worker's own tables, under the same lock.
      await runMigrations({ pgPool: pool, logger: new Logger(() => () => {}) });
      return ran;
    } finally {
      await client.query('SELECT pg_advisory_unlock($1)', [lockKey]);
      await client.query('RESET statement_timeout');
    }
  } finally {
    client.release();
  }
}
