import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { startEmbedded } from './embedded.ts';
import { openDatabase } from './pool.ts';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cde-pg-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

test('starts, is adopted by a second start, keeps its data through kill -9, and stops', async () => {
  const first = await startEmbedded(folder);
  const database = openDatabase(first.url);
  await database.pool.query('CREATE TABLE kept (n int); INSERT INTO kept VALUES (42)');
  await database.close();
  const second = await startEmbedded(folder);
  expect(second).toMatchObject({ adopted: true, url: first.url });

  const pid = Number((await readFile(join(folder, 'postgres/data/postmaster.pid'), 'utf8')).split('\n')[0]);
  process.kill(pid, 'SIGKILL');
  const third = await startEmbedded(folder);
  expect(third.adopted).toBe(false);
  const again = openDatabase(third.url);
  expect((await again.pool.query('SELECT n FROM kept')).rows).toEqual([{ n: 42 }]);
  await again.close();
  await third.stop();
  await third.stop();
});

test('listens only on its Unix socket', async () => {
  const embedded = await startEmbedded(folder);
  const database = openDatabase(embedded.url);
  expect((await database.pool.query('SHOW listen_addresses')).rows).toEqual([{ listen_addresses: '' }]);
  await database.close();
  await embedded.stop();
});
