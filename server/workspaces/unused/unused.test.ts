import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { sql } from 'drizzle-orm';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { until } from '../../../tests/kit/until.ts';
import { readConfig } from '../../config.ts';
import { type ControlPlane, startControlPlane } from '../../control-plane.ts';
import { insertEvents } from '../../idle/activity-store.ts';
import { defaultCleanupPolicy } from '../../idle/settings.ts';
import { makeLog } from '../../log.ts';
import { addUser, makeTestDatabase, type TestDatabase, type TestUser } from '../../testing.ts';
import { makeScriptedProvider, type ScriptedProvider } from '../scripted-provider.ts';
import { makeSweep } from '../sweep.ts';

// What happens to workspaces that no person uses, on injected time. They were created without a start, so no agent is needed.
const minute = 60_000;
const hour = 60 * minute;
const day = 24 * hour;
const homeGraceMs = 7 * day;

let database: TestDatabase;
let server: ControlPlane;
let provider: ScriptedProvider;
let folder: string;
let ada: TestUser;
let admin: TestUser;
let clock: number;
let count = 0;

beforeAll(async () => {
  database = await makeTestDatabase();
  folder = await mkdtemp(join(tmpdir(), 'cde-data-'));
  clock = Date.now();
  provider = makeScriptedProvider();
  server = await startControlPlane({
    config: readConfig([], { CDE_DATA_DIR: folder, CDE_LISTEN: '127.0.0.1:0', CDE_HOME_GRACE_DAYS: '7' }),
    database,
    log: makeLog('silent'),
    now: () => new Date(clock),
    providers: new Map([['local', provider]]),
    checkReplies: true,
  });
  ada = await addUser(database, 'ada');
  admin = await addUser(database, 'adm', 'owner');
  const text =
    'name: tidy\nprovider: local\nidle: { dormantAfterDays: 2, archiveAfterDays: 4, deleteAfterDays: 7 }\n';
  await call(admin, 'POST', '/api/v1/templates', { files: { 'template.yaml': text } });
  await call(admin, 'PUT', '/api/v1/cleanup/policy', { ...defaultCleanupPolicy, deleteNoticeDays: 1 });
});
afterAll(async () => {
  await server?.stop();
  await database?.drop();
  await rm(folder, { recursive: true, force: true });
});
beforeEach(async () => {
  provider.calls.length = 0;
  provider.nextMoves.length = 0;
  await database.pool.query("UPDATE workspaces SET status = 'deleted', desired = 'deleted'");
  await database.pool.query('DELETE FROM activity_events');
});

async function call(
  user: TestUser,
  method: string,
  path: string,
  body?: unknown,
): Promise<{ status: number; body: any }> {
  const reply = await fetch(server.url + path, {
    method,
    headers: {
      authorization: `Bearer ${user.token}`,
      ...(body !== undefined && { 'content-type': 'application/json' }),
    },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  });
  const text = await reply.text();
  return { status: reply.status, body: text === '' ? undefined : JSON.parse(text) };
}

/** A workspace that was created, and last used, at this moment. */
async function created(): Promise<string> {
  const name = `w${++count}`;
  const { body } = await call(ada, 'POST', '/api/v1/workspaces', { name, template: 'tidy', start: false });
  await database.pool.query(
    `INSERT INTO workspace_activity (workspace_id, person_at) VALUES ($1, to_timestamp($2 / 1000.0))
     ON CONFLICT (workspace_id) DO UPDATE SET person_at = excluded.person_at`,
    [body.id, clock],
  );
  return body.id;
}
const show = async (id: string) => (await call(ada, 'GET', `/api/v1/workspaces/${id}`)).body;
const activity = async (id: string) => (await call(ada, 'GET', `/api/v1/workspaces/${id}/activity`)).body;
const events = async (id: string): Promise<{ kind: string; text: string }[]> =>
  (await call(ada, 'GET', `/api/v1/workspaces/${id}/activity/events?limit=100`)).body.items;
const kinds = async (id: string) => (await events(id)).map(({ kind }) => kind);
const names = async (query = '') =>
  (await call(ada, 'GET', `/api/v1/workspaces?${query}`)).body.items.map(({ id }: { id: string }) => id);
const audit = async (action: string) =>
  (await call(admin, 'GET', `/api/v1/audit?action=${action}`)).body.items;
const due = async (): Promise<{ workspaceId: string; action: string; at: string }[]> =>
  (await call(admin, 'GET', '/api/v1/cleanup/preview')).body.items;

/** The preview says so, unless the server's own sweep has done it already. */
async function isDue(id: string, action: string, isDone: () => Promise<boolean>) {
  const listed = await due();
  const isListed = listed.some((each) => each.workspaceId === id && each.action === action);
  expect(isListed || (await isDone())).toBe(true);
}

/** Sweeps, also while the server's own sweep is at it. */
const sweep = () => until(() => server.app.idle.sweep(), Boolean);
/** Time passes while the server runs: in steps, because a longer gap between two sweeps means that no server ran. */
async function pass(ms: number) {
  for (let left = ms; left > 0; left -= 58 * minute) {
    clock += Math.min(left, 58 * minute);
    await sweep();
  }
}
/** Time that no server has to count: nothing is announced yet. */
async function leap(ms: number) {
  clock += ms;
  await sweep();
}

async function dormant(): Promise<string> {
  const id = await created();
  await leap(2 * day + hour);
  await until(
    () => activity(id),
    ({ dormantAt }) => dormantAt !== null,
  );
  return id;
}
/** A workspace whose deletion is announced for a day later. */
async function announced(): Promise<string> {
  const id = await dormant();
  await leap(4 * day);
  expect((await activity(id)).deletesAt).not.toBeNull();
  return id;
}

test('an unused workspace is archived: missing from lists unless they ask for it, and found by its name', async () => {
  const id = await dormant();
  await leap(2 * day - 2 * hour);
  expect((await activity(id)).archivedAt).toBeNull();
  clock += hour + minute;
  await isDue(id, 'archive', async () => (await activity(id)).archivedAt !== null);
  await leap(hour);
  expect(await names()).not.toContain(id);
  expect(await names('archived=only')).toEqual([id]);
  expect(await names('archived=include')).toContain(id);
  expect(await show(id)).toMatchObject({
    status: 'stopped',
    archivedAt: expect.any(String),
    deletesAt: null,
  });
  expect(await kinds(id)).toContain('archived');
  expect((await audit('cleanup.archive'))[0]).toMatchObject({ actor: 'system', targetId: id });
});

test('an unused workspace is deleted once its notice is over, and its home is retained for its grace period from then', async () => {
  const id = await dormant();
  await leap(4 * day - 2 * hour);
  expect((await activity(id)).deletesAt).toBeNull();
  // Announced late: the notice is a whole one.
  await leap(3 * day);
  const { deletesAt } = await show(id);
  expect(deletesAt).toBe(new Date(clock + day).toISOString());
  expect((await audit('cleanup.announce-deletion'))[0]).toMatchObject({ targetId: id, after: { deletesAt } });
  expect(await due()).toContainEqual(
    expect.objectContaining({ workspaceId: id, action: 'await-deletion', at: deletesAt }),
  );
  await pass(day - minute);
  expect(await show(id)).toMatchObject({ status: 'stopped', deletesAt });
  clock += minute;
  await isDue(id, 'delete', async () => (await show(id)).desired === 'deleted');
  await pass(11 * minute);
  const deleted = await until(
    () => show(id),
    ({ status }) => status === 'deleted',
  );
  expect(deleted.latestBuild).toMatchObject({
    initiator: 'system',
    reason: 'deleted: no person has used it for 7 days, as announced',
  });
  expect((await audit('cleanup.delete'))[0]).toMatchObject({ actor: 'system', targetId: id });
  const homes = await call(ada, 'GET', '/api/v1/homes');
  expect(homes.body.items).toContainEqual(
    expect.objectContaining({
      id,
      keptUntil: new Date(Date.parse(deleted.updatedAt) + homeGraceMs).toISOString(),
    }),
  );

  // Its bytes were set aside when it became dormant, long before. No sweep may delete them before the period is over.
  const sweepHomes = makeSweep({
    database,
    providers: new Map([['local', provider]]),
    homeGraceMs,
    now: () => new Date(clock),
    log: makeLog('silent'),
    afterEach: async () => {},
  });
  await sweepHomes.runOnce();
  expect(provider.purges.at(-1)?.except).toContain(id);
  clock += homeGraceMs;
  await sweepHomes.runOnce();
  expect(provider.purges.at(-1)?.except).not.toContain(id);
});

describe('an announced deletion is cancelled', () => {
  test('by a person who keeps it', async () => {
    const id = await announced();
    // Archived, but its owner must see it.
    expect((await activity(id)).archivedAt).not.toBeNull();
    expect(await names()).toContain(id);
    const { status, body } = await call(ada, 'POST', `/api/v1/workspaces/${id}/keep`, {});
    expect([status, body.deletesAt, body.archivedAt]).toEqual([200, null, null]);
    expect(await kinds(id)).toEqual(expect.arrayContaining(['kept', 'deletion-cancelled']));
    expect((await audit('workspace.keep'))[0]).toMatchObject({ actor: 'ada', targetId: id });
    expect(await names()).toContain(id);
    await pass(2 * day);
    expect(await show(id)).toMatchObject({ status: 'stopped', deletesAt: null });
  });

  test('by a start, from the request on, even if it fails', async () => {
    const id = await announced();
    provider.nextMoves.push({
      kind: 'failed',
      error: { code: 'cluster-away', message: 'The cluster is unreachable.', fault: 'system' },
    });
    await call(ada, 'POST', `/api/v1/workspaces/${id}/start`);
    expect(await show(id)).toMatchObject({ deletesAt: null, archivedAt: null });
    await until(
      () => show(id),
      ({ latestBuild }) => latestBuild.status === 'failed',
    );
    await pass(2 * day);
    expect(await show(id)).toMatchObject({ status: 'failed' });
    expect(provider.calls).not.toContain('remove discard');
  });

  test('by never-stop', async () => {
    const id = await announced();
    await call(ada, 'PUT', `/api/v1/workspaces/${id}/idle-policy`, {
      neverStop: { until: new Date(clock + 20 * day).toISOString(), reason: 'a paper' },
    });
    await pass(2 * day);
    expect(await show(id)).toMatchObject({ status: 'stopped', deletesAt: null });
    expect(await kinds(id)).toContain('deletion-cancelled');
    expect((await audit('cleanup.cancel-deletion'))[0]).toMatchObject({ targetId: id });
  });
});

test('no change of the policy brings a deletion forward', async () => {
  const {
    body: { etag: _, ...bounds },
  } = await call(admin, 'GET', '/api/v1/cleanup/policy');
  const id = await announced();
  const { deletesAt } = await activity(id);
  try {
    await call(admin, 'PUT', '/api/v1/cleanup/policy', { ...bounds, deleteAfterDays: 3 });
    await pass(20 * hour);
    expect(await show(id)).toMatchObject({ status: 'stopped', deletesAt });
  } finally {
    expect((await call(admin, 'PUT', '/api/v1/cleanup/policy', bounds)).status).toBe(200);
  }
});

test('time without a server does not count as notice', async () => {
  const id = await announced();
  const before = Date.parse((await activity(id)).deletesAt);
  await leap(5 * day);
  expect(await show(id)).toMatchObject({
    status: 'stopped',
    deletesAt: new Date(before + 5 * day).toISOString(),
  });
});

test('a deletion that fails leaves the home alone, and is tried again a day later', async () => {
  const id = await announced();
  await pass(23 * hour);
  provider.nextMoves.push({
    kind: 'failed',
    error: { code: 'cluster-away', message: 'The cluster is unreachable.', fault: 'system' },
  });
  await pass(2 * hour);
  await until(
    () => show(id),
    ({ status }) => status === 'failed',
  );
  await pass(22 * hour);
  expect((await show(id)).status).toBe('failed');
  await pass(4 * hour);
  await until(
    () => show(id),
    ({ status }) => status === 'deleted',
  );
  expect(provider.calls).not.toContain('remove discard');
});

test('a person keeps a workspace while a report of its activity is recorded', async () => {
  const id = await created();
  const kept = await database.db.transaction(async (tx) => {
    await tx.execute(sql`SELECT 1 FROM workspace_activity WHERE workspace_id = ${id} FOR UPDATE`);
    const keeping = call(ada, 'POST', `/api/v1/workspaces/${id}/keep`, {});
    await until(
      () =>
        database.pool.query(
          "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
        ),
      ({ rowCount }) => rowCount! > 0,
    );
    await insertEvents(tx, [{ workspaceId: id, at: clock, kind: 'warned', text: 'stops in 5 min' }]);
    // Not awaited yet: it waits for the end of this transaction.
    return { keeping };
  });
  expect((await kept.keeping).status).toBe(200);
  expect(await kinds(id)).toEqual(expect.arrayContaining(['warned', 'kept']));
});

test('the brake holds deletions back, until an admin releases them, and does not count those', async () => {
  const createMany = async (number: number) => {
    const made: string[] = [];
    while (made.length < number) made.push(await created());
    return made;
  };
  const untilDormant = async (workspaces: string[]) => {
    for (const id of workspaces)
      await until(
        () => activity(id),
        ({ dormantAt }) => dormantAt !== null,
      );
  };
  const untilDeleted = async (workspaces: string[]) => {
    for (const id of workspaces)
      await until(
        () => show(id),
        ({ status }) => status === 'deleted',
      );
  };
  const ids = await createMany(7);
  await leap(1.5 * day);
  const later = await createMany(5);
  await leap(0.5 * day + hour);
  await untilDormant(ids);
  await leap(4 * day);
  await untilDormant(later);
  await pass(day + 11 * minute);
  const held = (await due()).filter(({ action }) => action === 'hold').map(({ workspaceId }) => workspaceId);
  expect(held).toHaveLength(2);
  expect(await kinds(held[0]!)).toContain('deletion-held');
  expect(await show(held[0]!)).toMatchObject({ status: 'stopped' });
  await pass(18 * hour);
  expect((await call(admin, 'POST', '/api/v1/cleanup/release', {})).body).toEqual({ released: 2 });
  await untilDeleted(ids);
  expect(await events(held[0]!)).toContainEqual(
    expect.objectContaining({ kind: 'deletion-decided', by: 'adm' }),
  );
  // The five are out of the window, and the two would leave only three.
  await pass(18 * hour);
  await untilDeleted(later);
});
