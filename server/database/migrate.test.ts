import { afterAll, beforeAll, expect, test } from 'vitest';
import { makeTestDatabase, type TestDatabase } from '../testing.ts';
import { knownMigrations, MigrationError, migrate } from './migrate.ts';

let database: TestDatabase;
beforeAll(async () => {
  database = await makeTestDatabase();
});
afterAll(() => database.drop());

test('concurrent replicas run each migration once', async () => {
  await database.pool.query(
    'DROP SCHEMA public CASCADE; CREATE SCHEMA public; DROP SCHEMA graphile_worker CASCADE',
  );
  const ran = await Promise.all([1, 2, 3, 4].map(() => migrate(database.pool)));
  expect(ran.flat()).toEqual((await knownMigrations()).map((migration) => migration.name));
});

test('a second run does nothing', async () => {
  expect(await migrate(database.pool)).toEqual([]);
});

test('a newer database is rejected and not changed', async () => {
  await database.pool.query("INSERT INTO migrations (number, name) VALUES (9999, '9999_future.sql')");
  await expect(migrate(database.pool)).rejects.toThrow(MigrationError);
  await expect(migrate(database.pool)).rejects.toThrow(/9999_future/);
  await database.pool.query('DELETE FROM migrations WHERE number = 9999');
});

test('migration numbers have no gaps and no duplicates', async () => {
  expect((await knownMigrations()).map((migration) => migration.number)).toEqual(
    (await knownMigrations()).map((_, index) => index + 1),
  );
});
