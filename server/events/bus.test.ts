import pg from 'pg';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { until } from '../../tests/kit/until.ts';
import { makeLog } from '../log.ts';
import { makeTestDatabase, type TestDatabase } from '../testing.ts';
import { type Bus, type Change, makeBus } from './bus.ts';

let database: TestDatabase;
/** Two replicas of one installation. */
let here: Bus;
let there: Bus;
const open: Bus[] = [];

beforeAll(async () => {
  database = await makeTestDatabase();
  here = await startBus();
  there = await startBus();
});
afterEach(() => {
  for (const unsubscribe of subscriptions.splice(0)) unsubscribe();
});
afterAll(async () => {
  for (const bus of open) await bus.close();
  await database?.drop();
});

async function startBus(): Promise<Bus> {
  const bus = makeBus({ url: database.url, pool: database.pool, log: makeLog('silent') });
  open.push(bus);
  await bus.start();
  return bus;
}

const subscriptions: (() => void)[] = [];
/** What a subscriber of the bus is told. */
function subscriber(bus: Bus) {
  const told = { changes: [] as Change[], gaps: 0 };
  const unsubscribe = bus.subscribe(
    (change) => told.changes.push(change),
    () => {
      told.gaps++;
    },
  );
  subscriptions.push(unsubscribe);
  return told;
}

test('a change is delivered here at once, and to other replicas once per batch of at most 80', async () => {
  const near = subscriber(here);
  const far = subscriber(there);
  const wire = new pg.Client({ connectionString: database.url });
  await wire.connect();
  try {
    await wire.query('LISTEN cde_changes');
    const batches: number[] = [];
    wire.on('notification', ({ payload }) => batches.push(JSON.parse(payload!)[1].length));

    const changes = Array.from({ length: 100 }, (_, index) =>
      index % 2 ? { workspaceId: `w${index}`, buildId: `b${index}` } : { workspaceId: `w${index}` },
    );
    for (const change of [...changes, ...changes.slice(0, 50)]) here.publish(change);
    expect(near.changes).toHaveLength(150);

    await until(
      () => far.changes,
      (received) => received.length === 100,
    );
    expect(far.changes).toEqual(changes);
    await until(
      () => batches,
      (received) => received.length === 2,
    );
    expect(batches).toEqual([80, 20]);
    // Its own notifications come back to the replica, which ignores them.
    expect(near.changes).toHaveLength(150);
  } finally {
    await wire.end();
  }
});

test('a subscriber that left is told nothing', async () => {
  const gone: Change[] = [];
  here.subscribe((change) => gone.push(change))();
  const far = subscriber(there);
  here.publish({ workspaceId: 'later' });
  await until(
    () => far.changes,
    (received) => received.length === 1,
  );
  expect(gone).toEqual([]);
});

test('a replica whose connection broke reports the gap, and receives changes again', async () => {
  const far = subscriber(there);
  const { rows } = await database.pool.query(
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
     WHERE datname = current_database() AND query LIKE 'LISTEN cde_changes;%'`,
  );
  expect(rows.length).toBeGreaterThanOrEqual(2);
  await until(
    () => far.gaps,
    (gaps) => gaps === 1,
  );
  here.publish({ workspaceId: 'after' });
  await until(
    () => far.changes,
    (received) => received.some(({ workspaceId }) => workspaceId === 'after'),
  );
});

test('a revocation is announced at once, here and to other replicas', async () => {
  const [near, far]: [string[], string[]] = [[], []];
  subscriptions.push(
    here.subscribeRevocations((userId) => near.push(userId)),
    there.subscribeRevocations((userId) => far.push(userId)),
  );
  here.publishRevocation('ada');
  expect(near).toEqual(['ada']);
  await until(
    () => far,
    (users) => users.length > 0,
  );
  expect(far).toEqual(['ada']);
  expect(near).toEqual(['ada']);
});

test('a replica that closes sends what it still holds', async () => {
  const far = subscriber(there);
  const closing = await startBus();
  closing.publish({ workspaceId: 'last' });
  await closing.close();
  await until(
    () => far.changes,
    (received) => received.length === 1,
  );
  expect(far.changes).toEqual([{ workspaceId: 'last' }]);
});
