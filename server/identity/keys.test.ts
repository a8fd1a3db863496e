import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { makeTestDatabase, type TestDatabase } from '../testing.ts';
import { loadKeys } from './keys.ts';

let database: TestDatabase;
let folder: string;
beforeAll(async () => {
  database = await makeTestDatabase();
  folder = await mkdtemp(join(tmpdir(), 'cde-keys-'));
});
afterAll(async () => {
  await database.drop();
  await rm(folder, { recursive: true, force: true });
});

test('replicas that start together agree on one key, kept sealed', async () => {
  const all = await Promise.all([1, 2, 3].map(() => loadKeys(database, folder, undefined)));
  expect(new Set(all.map((keys) => keys.tickets.publicKey)).size).toBe(1);
  expect(new Set(all.map((keys) => keys.agentToken('b'))).size).toBe(1);
  expect((await stat(join(folder, 'secret.key'))).mode & 0o777).toBe(0o600);
  const { rows } = await database.pool.query<{ sealed: Buffer }>('SELECT sealed FROM server_keys');
  const secret = (await readFile(join(folder, 'secret.key'), 'utf8')).trim();
  expect(rows[0]!.sealed.toString('latin1')).not.toContain(secret);
  expect(all[0]!.open(all[1]!.seal(Buffer.from('hello'))).toString()).toBe('hello');
});

test('another secret is refused with what to do', async () => {
  await expect(loadKeys(database, folder, 'another secret key, also long enough')).rejects.toThrow(
    /CDE_SECRET_KEY/,
  );
});
