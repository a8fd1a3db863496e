import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SettingsError } from '@cde/api/settings.ts';
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest';
import { readConfig } from '../config.ts';
import { makeTestDatabase, type TestDatabase } from '../testing.ts';
import { checkSecretKey, loadKeys, SecretKeyError } from './keys.ts';

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

test('replicas that start concurrently agree on one encrypted key', async () => {
  const all = await Promise.all([1, 2, 3].map(() => loadKeys(database, folder, undefined)));
  expect(new Set(all.map((keys) => keys.tickets.publicKey)).size).toBe(1);
  expect(new Set(all.map((keys) => keys.agentToken('b'))).size).toBe(1);
  expect((await stat(join(folder, 'secret.key'))).mode & 0o777).toBe(0o600);
  const { rows } = await database.pool.query<{ sealed: Buffer }>('SELECT sealed FROM server_keys');
  const secret = (await readFile(join(folder, 'secret.key'), 'utf8')).trim();
  expect(rows[0]!.sealed.toString('latin1')).not.toContain(secret);
  expect(all[0]!.open(all[1]!.seal(Buffer.from('hello'))).toString()).toBe('hello');
});

test('a different secret key is rejected with a hint', async () => {
  await expect(loadKeys(database, folder, 'another secret key, also long enough')).rejects.toMatchObject({
    message: expect.stringContaining('encrypted with a different secret key'),
    hint: expect.stringContaining('CDE_SECRET_KEY'),
  });
});

const faults: [string, string][] = [
  ['is empty', ''],
  ['has only white space', ' \n\n'],
  ['is short', 'x7'.repeat(15)],
  ['is one letter', 'x'.repeat(64)],
  ['was cut by a power failure', '\0'.repeat(43)],
  ['is far too long', `${'abcdefgh'.repeat(600)}`],
];

test.each(faults)('a key file that %s is rejected and not changed', async (_, text) => {
  const other = await mkdtemp(join(tmpdir(), 'cde-keys-'));
  onTestFinished(() => rm(other, { recursive: true, force: true }));
  await writeFile(join(other, 'secret.key'), text);
  await expect(loadKeys(database, other, undefined)).rejects.toThrow(SecretKeyError);
  await expect(checkSecretKey(database.pool, { dataDir: other, secretKey: undefined })).rejects.toThrow(
    join(other, 'secret.key'),
  );
  expect(await readFile(join(other, 'secret.key'), 'utf8')).toBe(text);
});

test.each(faults)('the variable follows the same rules: a key that %s', (_, text) => {
  // An empty variable counts as unset.
  if (text !== '') expect(() => readConfig([], { CDE_SECRET_KEY: text })).toThrow(SettingsError);
});

test('an unreadable key file is rejected', async () => {
  const other = await mkdtemp(join(tmpdir(), 'cde-keys-'));
  onTestFinished(() => rm(other, { recursive: true, force: true }));
  await mkdir(join(other, 'secret.key'));
  await expect(loadKeys(database, other, undefined)).rejects.toThrow(/cannot be read/);
});

test('a missing key file is rejected if the database contains encrypted data, and no new one is created', async () => {
  const other = await mkdtemp(join(tmpdir(), 'cde-keys-'));
  onTestFinished(() => rm(other, { recursive: true, force: true }));
  for (const refused of [
    () => checkSecretKey(database.pool, { dataDir: other, secretKey: undefined }),
    () => loadKeys(database, other, undefined),
  ])
    await expect(refused()).rejects.toMatchObject({
      message: expect.stringContaining('is missing'),
      hint: expect.stringContaining('Restore the file'),
    });
  expect(await readdir(other)).toEqual([]);
});
