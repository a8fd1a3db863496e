import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { makeReplica } from '../database/replicas.ts';
import { makeLog } from '../log.ts';
import { makeTestDatabase, type TestDatabase } from '../testing.ts';
import { enqueueReconcile, enqueueReconciles, makeWaker } from './queue.ts';
import { makeReconcileWorker, serializeByWorkspace } from './worker.ts';

let database: TestDatabase;
beforeAll(async () => {
  database = await makeTestDatabase();
});
afterAll(() => database?.drop());

/** Steps that block until the test ends them. */
function makeBlockingStep() {
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
  // After a round trip to the database, everything immediate has happened.
  const later = database.pool.query('SELECT 1').then(() => nothing);
  return (await Promise.race([call.then(() => true), later])) === true;
};

test('of several calls during a step only the newest waits', async () => {
  const blocking = makeBlockingStep();
  const serially = serializeByWorkspace(database, blocking.step);
  const first = serially('one', 1);
  await blocking.until(1);
  const second = serially('one', 1);
  expect(await settled(second)).toBe(false);
  const third = serially('one', 1);
  await second;
  expect(await settled(third)).toBe(false);
  expect(blocking.begun).toHaveLength(1);
  blocking.begun[0]!.end();
  await first;
  await blocking.until(2);
  const fourth = serially('one', 1);
  blocking.begun[1]!.end();
  await third;
  await blocking.until(3);
  blocking.begun[2]!.end();
  await fourth;
});

test('a failing step does not fail the call that waits for it', async () => {
  const blocking = makeBlockingStep();
  const serially = serializeByWorkspace(database, blocking.step);
  const first = serially('one', 1);
  await blocking.until(1);
  const second = serially('one', 1);
  blocking.begun[0]!.fail(new Error('no'));
  await expect(first).rejects.toThrow('no');
  await blocking.until(2);
  blocking.begun[1]!.end();
  await second;
});

test('workspaces do not wait for each other', async () => {
  const blocking = makeBlockingStep();
  const serially = serializeByWorkspace(database, blocking.step);
  const calls = [serially('one', 1), serially('two', 1)];
  await blocking.until(2);
  for (const { end } of blocking.begun) end();
  await Promise.all(calls);
});

test('builds in progress run first, then requested steps, then those of the sweep', async () => {
  const { rows } = await database.pool.query<{ owner: string; template: string; version: string }>(`
    WITH o AS (INSERT INTO users (id, username, role) VALUES (gen_random_uuid(), 'ada', 'member') RETURNING id),
         t AS (INSERT INTO templates (id, name) VALUES (gen_random_uuid(), 'plain') RETURNING id),
         v AS (INSERT INTO template_versions (id, template_id, number, files, files_hash, content)
               SELECT gen_random_uuid(), t.id, 1, '{}', '', '{}' FROM t RETURNING id)
    SELECT o.id AS owner, t.id AS template, v.id AS version FROM o, t, v`);
  const { owner, template, version } = rows[0]!;
  async function workspace(name: string, status: string, build?: 'queued'): Promise<string> {
    const [id, buildId] = [randomUUID(), build ? randomUUID() : null];
    const client = await database.pool.connect();
    await client.query('BEGIN');
    await client.query(
      `INSERT INTO workspaces (id, owner_id, name, template_id, template_version_id, provider, desired, status, current_build_id)
       VALUES ($1, $2, $3, $4, $5, 'local', 'running', $6, $7)`,
      [id, owner, name, template, version, status, buildId],
    );
    if (build)
      await client.query(
        `INSERT INTO builds (id, workspace_id, number, transition, status, template_version_id, parameters, initiator)
         VALUES ($1, $2, 1, 'stop', $3, $4, '{}', 'ada')`,
        [buildId, id, build, version],
      );
    await client.query('COMMIT');
    client.release();
    names.set(id, name);
    return id;
  }
  const names = new Map<string, string>();
  await enqueueReconcile(database.db, await workspace('swept', 'running'), 0, { isSweep: true });
  await enqueueReconcile(database.db, await workspace('queued', 'running', 'queued'), 0, { isSweep: true });
  await enqueueReconcile(database.db, await workspace('changed', 'running'));
  await enqueueReconcile(database.db, await workspace('later', 'starting'), 3600_000);
  await enqueueReconcile(database.db, await workspace('in-progress', 'stopping'), 0, { isSweep: true });
  const log = makeLog('silent');
  const taken: string[] = [];
  let done = () => {};
  const all = new Promise<void>((resolve) => {
    done = resolve;
  });
  const jobs = makeReconcileWorker({
    database,
    replica: makeReplica({ database, url: 'http://127.0.0.1:9', version: 'test', log }),
    log,
    concurrency: 1,
    async reconcile(workspaceId) {
      taken.push(names.get(workspaceId)!);
      if (taken.length === 4) done();
    },
  });
  await jobs.start();
  await all;
  await jobs.stop();
  expect(taken).toEqual(['in-progress', 'queued', 'changed', 'swept']);
});

test('waking many workspaces at once takes one connection, and ignores invalid ids', async () => {
  const wake = makeWaker(database, makeLog('silent'));
  const ids = Array.from({ length: 250 }, () => randomUUID());
  let max = 0;
  const acquired = () => {
    max = Math.max(max, database.pool.totalCount - database.pool.idleCount + database.pool.waitingCount);
  };
  database.pool.on('acquire', acquired);
  for (const id of ids) wake(id);
  wake('somebody-else');
  wake(ids[0]!);
  const queued = async () =>
    (
      await database.pool.query<{ id: string }>(
        "SELECT substr(key, 11) AS id FROM graphile_worker.jobs WHERE key = ANY(SELECT 'workspace:' || unnest($1::text[]))",
        [ids],
      )
    ).rows.map(({ id }) => id);
  while ((await queued()).length < ids.length);
  database.pool.off('acquire', acquired);
  expect((await queued()).sort()).toEqual([...ids].sort());
  // One for the waker, and one for this test.
  expect(max).toBeLessThanOrEqual(2);
});

test('the worker restarts after it could not record the end of jobs', async () => {
  await database.pool.query('DELETE FROM graphile_worker._private_jobs');
  await database.pool.query(`
    CREATE FUNCTION no_end() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.5); RAISE EXCEPTION 'not now'; END $$`);
  await database.pool.query(
    'CREATE TRIGGER no_end BEFORE DELETE ON graphile_worker._private_jobs FOR EACH ROW EXECUTE FUNCTION no_end()',
  );
  const blocking = makeBlockingStep();
  const log = makeLog('silent');
  const jobs = makeReconcileWorker({
    database,
    replica: makeReplica({ database, url: 'http://127.0.0.1:9', version: 'test', log }),
    log,
    concurrency: 3,
    reconcile: blocking.step,
  });
  await enqueueReconciles(database.db, [randomUUID(), randomUUID(), randomUUID()]);
  await jobs.start();
  await blocking.until(3);
  // One after the other, all before the first has failed.
  for (const [index, { end }] of blocking.begun.splice(0).entries()) {
    end();
    const sleeping = async () =>
      (await database.pool.query("SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'")).rowCount;
    while ((await sleeping()) !== index + 1);
  }
  // The next runner runs the jobs again whose end was not recorded.
  await blocking.until(3);
  await database.pool.query('DROP TRIGGER no_end ON graphile_worker._private_jobs');
  for (const { end } of blocking.begun.splice(0)) end();
  await enqueueReconcile(database.db, randomUUID());
  await blocking.until(1);
  for (const { end } of blocking.begun) end();
  await jobs.stop();
}, 60_000);

test('a step that hangs while the registration is lost does not keep other jobs from running', async () => {
  await database.pool.query('DELETE FROM graphile_worker._private_jobs');
  const blocking = makeBlockingStep();
  let hangs = true;
  const log = makeLog('silent');
  const replica = makeReplica({ database, url: 'http://127.0.0.1:9', version: 'test', log });
  const jobs = makeReconcileWorker({
    database,
    replica,
    log,
    concurrency: 3,
    reconcile: async () => (hangs ? blocking.step() : undefined),
  });
  await enqueueReconcile(database.db, randomUUID());
  await jobs.start();
  await blocking.until(1);
  const lost = new Promise<void>((resolve) => replica.onLost(resolve));
  const { rowCount } = await database.pool.query(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'cde-replica' AND datname = current_database()",
  );
  expect(rowCount).toBe(1);
  await lost;
  await enqueueReconcile(database.db, randomUUID());
  await blocking.until(2);
  // The step that hung is tried again.
  hangs = false;
  for (const { end } of blocking.begun) end();
  await jobs.stop();
}, 60_000);
