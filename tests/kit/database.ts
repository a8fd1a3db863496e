import { randomBytes } from 'node:crypto';
import pg from 'pg';
import { inject } from 'vitest';

/** The URL of a new database: a clone of the migrated one (about 100 ms). It is removed when the run ends, if not before. */
export async function cloneDatabase(): Promise<string> {
  const name = `test_${randomBytes(6).toString('hex')}`;
  await runAsOwner(`CREATE DATABASE ${name} TEMPLATE cde`);
  return urlOf(name);
}

export async function dropDatabase(url: string): Promise<void> {
  const name = /\/(test_\w+)\?/.exec(url)![1];
  await runAsOwner(`DROP DATABASE ${name} WITH (FORCE)`);
}

const urlOf = (name: string) => inject('databaseUrl').replace('/cde?', `/${name}?`);

async function runAsOwner(sql: string): Promise<void> {
  const client = new pg.Client({ connectionString: urlOf('postgres') });
  await client.connect();
  await client.query(sql);
  await client.end();
}
