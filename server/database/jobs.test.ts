import { afterAll, beforeAll, expect, test } from 'vitest';
import { makeTestDatabase, type TestDatabase } from '../testing.ts';
import { makeSerial } from './jobs.ts';

let database: TestDatabase;
beforeAll(async () => {
  database = await makeTestDatabase();
});
afterAll(() => database?.drop());

/** Steps that stand still until they are let go, and tell when they begin. */
function makeStanding() {
  const begun: { end: () => void; fail: (error: Error) => void }[] = [];
  let woken: () => void = () => {};
  return {
    begun,
    step: () =>
      new Promise<void>((resolve, reject) => {
        begun.push({ end: resolve, fail: reject });
        woken();
      }),
    async until(count: number) {
      while (begun.length < count)
        await new Promise<void>((resolve) => {
          woken = resolve;
        });
    },
  };
}
const settled = async (call: Promise<void>) => {
  const nothing = Symbol();
  // A round trip to the database: whatever was to happen at once has happened.
  const later = database.pool.query('SELECT 1').then(() => nothing);
  return (await Promise.race([call.then(() => true), later])) === true;
};

test('of the calls that come while a step runs the newest waits for its turn, the others end', async () => {
  const standing = makeStanding();
  const serially = makeSerial(database, standing.step);
  const first = serially('one', 1);
  await standing.until(1);
  const second = serially('one', 1);
  expect(await settled(second)).toBe(false);
  const third = serially('one', 1);
  await second;
  expect(await settled(third)).toBe(false);
  expect(standing.begun).toHaveLength(1);
  standing.begun[0]!.end();
  await first;
  await standing.until(2);
  const fourth = serially('one', 1);
  standing.begun[1]!.end();
  await third;
  await standing.until(3);
  standing.begun[2]!.end();
  await fourth;
});

test('a step that fails takes nobody along who waits', async () => {
  const standing = makeStanding();
  const serially = makeSerial(database, standing.step);
  const first = serially('one', 1);
  await standing.until(1);
  const second = serially('one', 1);
  standing.begun[0]!.fail(new Error('no'));
  await expect(first).rejects.toThrow('no');
  await standing.until(2);
  standing.begun[1]!.end();
  await second;
});

test('workspaces do not wait for each other', async () => {
  const standing = makeStanding();
  const serially = makeSerial(database, standing.step);
  const calls = [serially('one', 1), serially('two', 1)];
  await standing.until(2);
  for (const { end } of standing.begun) end();
  await Promise.all(calls);
});
