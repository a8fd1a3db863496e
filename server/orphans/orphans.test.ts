import { v7 } from 'uuid';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { until } from '../../tests/kit/until.ts';
import { templateVersions, workspaces } from '../database/schema.ts';
import type { PlatformObject, Provider } from '../providers/provider.ts';
import { publishTemplate } from '../templates/publish.ts';
import { makeTestServer, type TestServer, type TestUser } from '../testing.ts';
import { makeScriptedProvider } from '../workspaces/scripted-provider.ts';

const hourMs = 3600_000;
const scanIntervalMs = 10 * 60_000;
let server: TestServer;
let ada: TestUser;
let member: TestUser;
/** What is on the platform of the fake provider. */
let objects: PlatformObject[];
let adoptions: { name: string; workspaceId: string; retainedAt: Date }[];
let isUnreachable: boolean;

async function open(env: Record<string, string> = {}) {
  const provider: Provider = {
    ...makeScriptedProvider(),
    name: 'docker',
    purgeHomes: async () => ({ purged: [], incomplete: false }),
    objects: {
      async list() {
        if (isUnreachable) throw new Error('The engine does not answer.');
        return [...objects];
      },
      async remove({ kind, name }) {
        if (kind === 'home') throw new Error('A sweep must not remove a home.');
        objects = objects.filter((object) => object.name !== name);
        return true;
      },
      async adopt({ name }, workspaceId, retainedAt) {
        adoptions.push({ name, workspaceId, retainedAt });
        return { home: name };
      },
    },
  };
  server = await makeTestServer(env, [provider]);
  ada = await server.addUser('ada', 'owner');
  member = await server.addUser('bob');
}

/** Publishes a template, which every workspace needs. */
const publish = () =>
  publishTemplate(
    { database: server.database, now: () => server.clock.at },
    { actor: { kind: 'system' }, requestId: 'test', ip: null },
    { files: { 'template.yaml': 'name: box\nprovider: docker\ndocker:\n  image: debian:12\n' } },
  );

async function addWorkspace(name: string, changes: Partial<typeof workspaces.$inferInsert> = {}) {
  const { db } = server.database;
  const [version] = await db.select().from(templateVersions);
  const id = v7();
  await db.insert(workspaces).values({
    id,
    ownerId: ada.id,
    name,
    templateId: version!.templateId,
    templateVersionId: version!.id,
    provider: 'docker',
    desired: 'stopped',
    status: 'stopped',
    ...changes,
  });
  return id;
}

const list = async (by = ada) => (await server.request(by, 'GET', '/api/v1/orphans')).body;

const object = (
  kind: PlatformObject['kind'],
  workspaceId: string | null,
  ageMs = 2 * hourMs,
): PlatformObject => ({
  kind,
  name: `${kind}-${workspaceId}`,
  workspaceId,
  createdAt: new Date(server.clock.at.getTime() - ageMs),
  ...(kind === 'home' && { owner: 'ada', workspaceName: 'web' }),
});

beforeEach(() => {
  objects = [];
  adoptions = [];
  isUnreachable = false;
});
afterEach(() => server.close());

test('lists what belongs to no workspace, and deletes it without its home', async () => {
  await open();
  await publish();
  const lost = v7();
  const known = await addWorkspace('known');
  const deleted = await addWorkspace('old', {
    status: 'deleted',
    desired: 'deleted',
    deletedAt: new Date(server.clock.at.getTime() - hourMs),
  });
  objects = [
    object('home', lost),
    object('network', lost),
    object('compute', lost),
    object('compute', known),
    object('home', known),
    object('compute', deleted),
    object('volume', null),
    object('compute', v7(), hourMs / 2),
  ];
  expect(await list()).toMatchObject({
    unseen: [],
    items: [
      { kind: 'compute', provider: 'docker', cluster: null, name: `compute-${lost}`, action: 'delete' },
      { name: `compute-${deleted}`, reason: 'Its workspace ada/old was deleted.', action: 'delete' },
      { name: `network-${lost}`, action: 'delete' },
      { name: 'volume-null', action: 'delete' },
      { name: `home-${lost}`, reason: 'The home of ada/web, which is not in the database.', action: 'keep' },
    ],
  });
  expect((await server.request(member, 'GET', '/api/v1/orphans')).status).toBe(403);
  expect(await server.request(ada, 'GET', '/api/v1/orphans?provider=local')).toMatchObject({
    body: { items: [] },
  });

  const dryRun = await server.request(ada, 'POST', '/api/v1/orphans/clean', {});
  expect(dryRun.body).toMatchObject({ done: false });
  expect(objects).toHaveLength(8);
  await server.request(ada, 'POST', '/api/v1/orphans/clean', { dryRun: false, provider: 'docker' });
  expect(objects.map(({ name }) => name)).toEqual([
    `home-${lost}`,
    `compute-${known}`,
    `home-${known}`,
    expect.stringMatching(/^compute-/),
  ]);
});

test('a home is given to a user, who can restore it', async () => {
  await open();
  const lost = v7();
  objects = [object('home', lost), object('compute', lost)];
  const adopt = (body: object) => server.request(ada, 'POST', '/api/v1/orphans/adopt', body);
  const name = `home-${lost}`;
  expect(await adopt({ name })).toMatchObject({ status: 404, body: { code: 'template-not-found' } });
  await publish();
  expect(await adopt({ name: `compute-${lost}` })).toMatchObject({ body: { code: 'orphan-not-found' } });
  expect(await adopt({ name, owner: 'grace' })).toMatchObject({ body: { code: 'user-not-found' } });
  expect(objects).toHaveLength(2);

  expect(await adopt({ name, provider: 'docker', owner: 'bob' })).toMatchObject({
    status: 200,
    body: { items: [{ id: lost, owner: 'bob', workspace: 'web', provider: 'docker', cluster: null }] },
  });
  // Nothing runs on it any longer, and it is retained for the usual time.
  expect(objects.map(({ kind }) => kind)).toEqual(['home']);
  const { rows } = await server.database.pool.query(
    "SELECT action, target_name FROM audit WHERE action IN ('provider.clean-orphan', 'home.adopt') ORDER BY action",
  );
  expect(rows).toEqual([
    { action: 'home.adopt', target_name: 'bob/web' },
    { action: 'provider.clean-orphan', target_name: `docker/compute-${lost}` },
  ]);
  expect(adoptions).toEqual([{ name, workspaceId: lost, retainedAt: server.clock.at }]);
  const homes = await server.request(member, 'GET', '/api/v1/homes');
  expect(homes.body.items).toMatchObject([{ id: lost, workspace: 'web' }]);
  expect((await list()).items).toEqual([]);
});

test('an adoption waits for that of another replica, and sees what it did', async () => {
  await open();
  await publish();
  const lost = v7();
  objects = [object('home', lost)];
  const other = await server.database.pool.connect();
  try {
    await other.query('BEGIN');
    await other.query("SELECT pg_advisory_xact_lock(hashtextextended('adopted homes', 3))");
    const answer = server.request(ada, 'POST', '/api/v1/orphans/adopt', { name: `home-${lost}` });
    await until(async () => {
      const { rows } = await other.query(
        `SELECT 1 FROM pg_locks JOIN pg_database ON oid = database
         WHERE datname = current_database() AND locktype = 'advisory' AND NOT granted`,
      );
      return rows.length > 0;
    }, 'the adoption waits');
    objects = [];
    await other.query('COMMIT');
    expect(await answer).toMatchObject({ status: 404, body: { code: 'orphan-not-found' } });
  } finally {
    other.release(true);
  }
});

test('homes that name no workspace are told apart, and need a user', async () => {
  await open();
  await publish();
  const nameless = (id: string): PlatformObject => ({
    kind: 'home',
    name: id,
    workspaceId: id,
    createdAt: new Date(server.clock.at.getTime() - 2 * hourMs),
  });
  const ids = ['01990000-0000-7000-8000-00000000000a', '01990000-0000-7000-8000-00000000000b'];
  objects = ids.map(nameless);
  const reason = 'The home of a workspace that is not in the database.';
  expect((await list()).items).toMatchObject([{ reason }, { reason }]);
  const adopt = (body: object) => server.request(ada, 'POST', '/api/v1/orphans/adopt', body);
  expect(await adopt({ name: ids[0] })).toMatchObject({ body: { code: 'user-not-found' } });
  for (const name of ids) await adopt({ name, owner: 'bob' });
  const homes = await server.request(member, 'GET', '/api/v1/homes');
  expect(homes.body.items.map((home: { workspace: string }) => home.workspace).sort()).toEqual([
    'home-0000000a',
    'home-0000000b',
  ]);
});

test.each(['report', 'clean'])('the sweep with CDE_ORPHANS=%s', async (policy) => {
  await open({ CDE_ORPHANS: policy });
  const [compute, agent] = [object('compute', v7()), object('volume', null)];
  objects = [compute, agent, object('home', v7())];
  const sweepLater = async () => {
    server.clock.at = new Date(server.clock.at.getTime() + scanIntervalMs);
    await server.app.sweep();
  };
  await server.app.sweep();
  // The database has no workspace: it may be the wrong one.
  expect(objects).toHaveLength(3);
  await publish();
  await addWorkspace('known');

  isUnreachable = true;
  await sweepLater();
  expect(objects).toHaveLength(3);
  expect(await list()).toEqual({ items: [], unseen: ['docker'] });

  isUnreachable = false;
  await sweepLater();
  expect(objects.map(({ kind }) => kind)).toEqual(policy === 'clean' ? ['home'] : ['compute', 'home']);
  const metrics = await server.app.metrics.metrics();
  expect(metrics).toContain('cde_orphans{cluster="",provider="docker",kind="home"} 1');
});
