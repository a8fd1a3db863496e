import { afterAll, beforeAll, expect, test } from 'vitest';
import { idempotencyKeys } from '../../database/schema.ts';
import type { UserActor } from '../../http/actor.ts';
import { addUser, makeTestDatabase, type TestDatabase } from '../../testing.ts';
import { deleteExpiredReplies, runIdempotent } from './idempotency.ts';

let database: TestDatabase;
let actor: UserActor;
const clock = { at: new Date() };
const now = () => clock.at;
beforeAll(async () => {
  database = await makeTestDatabase();
  const ada = await addUser(database, 'ada');
  actor = {
    kind: 'user',
    userId: ada.id,
    username: 'ada',
    role: 'member',
    scopes: ['all'],
    via: { kind: 'token', id: '' },
  };
});
afterAll(() => database.drop());

const once = (key: string, work: () => Promise<unknown>, fingerprint = 'a request') =>
  runIdempotent(database, now, actor, key, fingerprint, async () => ({ status: 201, body: await work() }));
const never = () => Promise.reject(new Error('this ran twice'));

/** Work that the test completes. */
function held<T>() {
  let begin = () => {};
  const begun = new Promise<void>((resolve) => {
    begin = resolve;
  });
  const { promise, resolve, reject } = Promise.withResolvers<T>();
  return {
    begun,
    resolve,
    reject,
    work: () => {
      begin();
      return promise;
    },
  };
}

test('a repeated request is rejected while the first is in progress, then gets the same reply', async () => {
  const first = held<string>();
  const reply = once('a', first.work);
  await first.begun;
  await expect(once('a', never)).rejects.toMatchObject({ code: 'idempotency-in-progress', retryAfter: 1 });
  first.resolve('made');
  expect(await reply).toEqual({ status: 201, body: 'made', replayed: false });
  expect(await once('a', never)).toEqual({ status: 201, body: 'made', replayed: true });
  await expect(once('a', never, 'another request')).rejects.toMatchObject({ code: 'idempotency-key-reused' });
});

test('a failed request is not stored', async () => {
  await expect(once('b', () => Promise.reject(new Error('no luck')))).rejects.toThrow('no luck');
  expect(await once('b', async () => 'luck')).toMatchObject({ body: 'luck', replayed: false });
});

test('an abandoned request blocks its key for a minute and does not overwrite its successor', async () => {
  const lost = held<string>();
  const start = clock.at;
  const reply = once('c', lost.work);
  await lost.begun;
  clock.at = new Date(start.getTime() + 60_001);
  expect(await once('c', async () => 'second')).toMatchObject({ body: 'second', replayed: false });
  lost.reject(new Error('late'));
  await expect(reply).rejects.toThrow('late');
  expect(await once('c', never)).toMatchObject({ body: 'second', replayed: true });
});

test('stored rows reveal neither the key nor the request', async () => {
  await once('secret-key', async () => 'x', 'a guessable body');
  const rows = await database.db.select().from(idempotencyKeys);
  expect(JSON.stringify(rows)).not.toContain('secret-key');
  expect(JSON.stringify(rows.map((row) => row.requestHash.toString()))).not.toContain('guessable');
});

test('replies are deleted after a day', async () => {
  clock.at = new Date(clock.at.getTime() + 24 * 3600_000 + 1);
  await deleteExpiredReplies(database, now);
  expect(await database.db.$count(idempotencyKeys)).toBe(0);
});
