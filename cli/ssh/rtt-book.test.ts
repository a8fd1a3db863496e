import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { makeRttBook } from './rtt-book.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cde-rtt-book-'));
});
afterAll(() => rm(folder, { recursive: true }));

test('what one command has measured, the next one knows for five minutes', async () => {
  const env = { CDE_CONFIG_DIR: folder };
  const file = join(folder, 'satellites.json');
  let at = 1_000_000;
  const now = () => at;
  const first = makeRttBook(env, now);
  expect(first.get('https://eu')).toBeUndefined();
  first.put('https://eu', 12.3456);
  const next = makeRttBook(env, now);
  expect(next.get('https://eu')).toBe(12.35);
  at += 299_000;
  expect(next.get('https://eu')).toBe(12.35);
  next.put('https://us', 80);
  at += 1_000;
  const later = makeRttBook(env, now);
  expect([later.get('https://eu'), later.get('https://us')]).toEqual([undefined, 80]);
  // Another network's are left alone, and old ones forgotten.
  await writeFile(
    file,
    JSON.stringify({ other: { 'https://eu': { ms: 3, at } }, old: { 'https://eu': { ms: 3, at: 1 } } }),
  );
  later.put('https://eu', 5);
  const kept = JSON.parse(await readFile(file, 'utf8'));
  expect(kept).toMatchObject({ other: { 'https://eu': { ms: 3 } } });
  expect(kept).not.toHaveProperty('old');
  await writeFile(file, 'not JSON');
  expect(makeRttBook(env, now).get('https://eu')).toBeUndefined();
});
