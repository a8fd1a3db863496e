import { expect, test } from 'vitest';
import { makePool } from './pool.ts';

/** Work that ends when the test says so. */
function makeWork() {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  let begun = false;
  const work = () => {
    begun = true;
    return promise;
  };
  return { work, resolve, reject, begun: () => begun };
}

const settle = () => new Promise((resolve) => setImmediate(resolve));

test('no more than the maximum runs at once, and the producer waits', async () => {
  const pool = makePool(2);
  const [one, two, three] = [makeWork(), makeWork(), makeWork()];
  await pool.start(one.work);
  await pool.start(two.work);
  const third = pool.start(three.work);
  await settle();
  expect(three.begun()).toBe(false);
  two.resolve();
  await third;
  expect(three.begun()).toBe(true);
  let isIdle = false;
  const idle = pool.idle().then(() => {
    isIdle = true;
  });
  one.resolve();
  await settle();
  expect(isIdle).toBe(false);
  three.resolve();
  await idle;
});

test('after a failure nothing new begins, and it is reported when the rest has ended', async () => {
  const pool = makePool(2);
  const [fails, runs, later] = [makeWork(), makeWork(), makeWork()];
  await pool.start(fails.work);
  await pool.start(runs.work);
  fails.reject(new Error('disk full'));
  let reported = false;
  const started = pool.start(later.work).catch((error) => {
    reported = true;
    throw error;
  });
  started.catch(() => {});
  await settle();
  expect(reported).toBe(false);
  runs.resolve();
  await expect(started).rejects.toThrow('disk full');
  await expect(pool.idle()).rejects.toThrow('disk full');
  expect(later.begun()).toBe(false);
});
