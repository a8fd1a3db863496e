import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { v7 } from 'uuid';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest';
import { type EmbeddedPostgres, startEmbedded } from '../../database/embedded.ts';
import { migrate } from '../../database/migrate.ts';
import { type Database, openDatabase } from '../../database/pool.ts';
import { makeLog } from '../../log.ts';
import { makeOrphanSweep } from '../../orphans/sweep.ts';
import type { Connections } from '../../providers/kubernetes/api/connections.ts';
import { openTestCluster, type TestCluster } from '../../providers/kubernetes/testing/cluster.ts';
import { testConnections } from '../../providers/kubernetes/testing.ts';
import { publishTemplate } from '../../templates/publish.ts';
import { addUser, type TestUser } from '../../testing.ts';
import { adoptOrphan } from './adopt.ts';
import { cleanOrphans, findOrphans, type OrphanDeps } from './orphans.ts';
import { makeKubernetesOrphans } from './source.ts';

const system = { actor: { kind: 'system' }, requestId: 'test', ip: null } as const;
let folder: string;
let attempts = 0;
/** Of one attempt at a test, which has a database and an installation of its own. */
let prefix: string;
let embedded: EmbeddedPostgres;
let database: Database;
let cluster: TestCluster;
let connections: Connections;
let deps: OrphanDeps;
let ada: TestUser;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cde-orphans-'));
  await chmod(folder, 0o711);
  embedded = await startEmbedded(folder, { fsync: 'off' });
  cluster = await openTestCluster();
});
afterAll(async () => {
  cluster?.close();
  await embedded?.stop();
  await rm(folder, { recursive: true, force: true });
});

beforeEach(async () => {
  prefix = `orphans-${Date.now().toString(36)}`;
  const name = `attempt_${++attempts}`;
  const server = openDatabase(embedded.url, { max: 1 });
  await server.pool.query(`CREATE DATABASE ${name}`);
  await server.close();
  database = openDatabase(embedded.url.replace('/cde?', `/${name}?`));
  await migrate(database.pool);
  ada = await addUser(database, 'ada', 'owner');
  const made = testConnections();
  connections = made.connections;
  // Two hours on, so that what is made now is old enough to be judged.
  const now = () => new Date(Date.now() + 2 * 3600_000);
  deps = { database, connections, installation: made.installation, now, log: makeLog('silent') };
  await vi.waitUntil(() => connections.get('one')?.view.synced, { timeout: 20_000 });
});
afterEach(async () => {
  const ours = `cde.dev/installation=${deps.installation}`;
  await cluster.discardVolumes(ours);
  for (const namespace of await cluster.list({ apiVersion: 'v1', kind: 'Namespace', labels: ours }))
    await cluster.removeObject(namespace);
  await connections.close();
  await database.close();
});

async function makeNamespace(name: string, workspaceId: string): Promise<void> {
  await cluster.create({
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: {
      name: `${prefix}-${name}`,
      labels: {
        'cde.dev/managed': 'true',
        'cde.dev/installation': deps.installation,
        'cde.dev/workspace': workspaceId,
        'cde.dev/owner': 'ada',
        'cde.dev/name': name,
      },
    },
  });
  await vi.waitUntil(() => connections.get('one')!.view.get('Namespace', '', `${prefix}-${name}`), {
    timeout: 10_000,
  });
}
/** A home that a pod has written to, as a workspace's. */
async function makeHome(name: string): Promise<string> {
  const namespace = `${prefix}-${name}`;
  await cluster.create({
    apiVersion: 'v1',
    kind: 'PersistentVolumeClaim',
    metadata: { name: 'home', namespace, labels: { 'cde.dev/role': 'home' } },
    spec: { accessModes: ['ReadWriteOnce'], resources: { requests: { storage: '64Mi' } } },
  });
  const claim = await vi.waitUntil(
    async () => {
      const found = await cluster.get({
        apiVersion: 'v1',
        kind: 'PersistentVolumeClaim',
        namespace,
        name: 'home',
      });
      return found?.status?.phase === 'Bound' && found;
    },
    { timeout: 30_000, interval: 200 },
  );
  return claim.spec!.volumeName!;
}
async function makeRow(
  name: string,
  status: string,
  more: { cluster?: string; namespace?: string } = {},
): Promise<string> {
  const id = v7();
  const { rows } = await database.pool.query<{ template: string; version: string }>(
    `WITH t AS (
       INSERT INTO templates (id, name) VALUES ($1, $2) RETURNING id
     ) INSERT INTO template_versions (id, template_id, number, files, files_hash, content)
       SELECT $3, id, 1, '{}', ''::bytea, '{}' FROM t RETURNING template_id AS template, id AS version`,
    [v7(), `t-${name}`, v7()],
  );
  await database.pool.query(
    `INSERT INTO workspaces (id, owner_id, name, template_id, template_version_id, provider, desired, status, cluster, namespace, deleted_at, home_kept_until)
     VALUES ($1, $2, $3, $4, $5, 'kubernetes', $6, $7, $8, $9, $10, NULL)`,
    [
      id,
      ada.id,
      name,
      rows[0]!.template,
      rows[0]!.version,
      status === 'deleted' ? 'deleted' : 'running',
      status,
      more.cluster ?? 'one',
      more.namespace ?? `${prefix}-${name}`,
      status === 'deleted' ? new Date() : null,
    ],
  );
  return id;
}
const reconciles = async () =>
  (
    await database.pool.query<{ key: string }>(
      "SELECT key FROM graphile_worker.jobs WHERE key LIKE 'workspace:%'",
    )
  ).rows.map(({ key }) => key.replace('workspace:', ''));

test('with an empty database nothing is deleted, and a home that was found can be given back to its user', async () => {
  const former = v7();
  await makeNamespace('former', former);
  const home = await makeHome('former');
  const told: string[] = [];
  const log = { ...deps.log, error: (_: unknown, text: string) => told.push(text), warn() {}, info() {} };
  const options = { ...deps, log: log as never, homeGraceMs: 7 * 24 * 3600_000 };
  const sources = [makeKubernetesOrphans(options)];
  const sweep = makeOrphanSweep({ ...options, sources, policy: 'clean' });
  await sweep.runIfDue();
  expect(told).toEqual([expect.stringContaining('The database is empty')]);
  const space = { apiVersion: 'v1', kind: 'Namespace', name: `${prefix}-former` };
  expect((await cluster.get(space))?.metadata.deletionTimestamp).toBeUndefined();

  const caller = {
    actor: { kind: 'user', userId: ada.id, username: 'ada' },
    requestId: 'test',
    ip: null,
  } as never;
  const adopt = (more: object = {}) =>
    adoptOrphan(options, { cluster: 'one', name: `${prefix}-former`, ...more }, caller);
  // Nothing is deleted for a home that could be nobody's.
  await expect(adopt({ owner: 'nobody' })).rejects.toMatchObject({ code: 'user-not-found' });
  await expect(adopt()).rejects.toMatchObject({ code: 'template-not-found' });
  expect((await cluster.get(space))?.metadata.deletionTimestamp).toBeUndefined();
  await publishTemplate({ database, now: deps.now }, system, {
    files: { 'template.yaml': 'name: team\nprovider: kubernetes\nkubernetes: { image: "debian:12" }\n' },
  });
  expect(await adopt()).toMatchObject([{ id: former, owner: 'ada', workspace: 'former', volume: home }]);
  const { rows } = await database.pool.query(
    "SELECT name, status, provider_state->>'homeVolume' AS volume, home_kept_until > now() AS kept FROM workspaces WHERE id = $1",
    [former],
  );
  expect(rows).toEqual([{ name: 'former', status: 'deleted', volume: home, kept: true }]);
  const volume = await cluster.get({ apiVersion: 'v1', kind: 'PersistentVolume', name: home });
  expect(volume).toMatchObject({
    metadata: { labels: { 'cde.dev/home': 'kept', 'cde.dev/workspace': former } },
    spec: { persistentVolumeReclaimPolicy: 'Retain' },
  });
  await vi.waitUntil(async () => (await cluster.get(space)) === null, { timeout: 60_000, interval: 300 });
  // It is no longer an orphan.
  expect((await findOrphans(deps)).items).toEqual([]);
  await expect(adopt({ name: home })).rejects.toMatchObject({ code: 'orphan-not-found' });
});

test('orphans are found, reported and deleted with their homes retained; everything else is left alone', async () => {
  const living = await makeRow('living', 'running');
  await makeNamespace('living', living);
  const deleted = await makeRow('deleted', 'deleted');
  await makeNamespace('deleted', deleted);
  const lost = await makeRow('lost', 'running');
  await makeRow('elsewhere', 'running', { cluster: 'unheard-of' });
  const stranger = v7();
  await makeNamespace('stranger', stranger);
  const home = await makeHome('stranger');

  const expected = [
    { kind: 'namespace', name: `${prefix}-deleted`, workspaceId: deleted, action: 'delete' },
    { kind: 'namespace', name: `${prefix}-stranger`, workspaceId: stranger, action: 'delete' },
    { kind: 'workspace', name: 'ada/lost', workspaceId: lost, action: 'report' },
  ];
  const byName = (a: { name: string }, b: { name: string }) => (a.name < b.name ? -1 : 1);
  const found = await findOrphans(deps);
  expect(await findOrphans(deps, { cluster: 'one' })).toEqual({ items: found.items, unseen: [] });
  expect((await findOrphans(deps, { cluster: 'another' })).items).toEqual([]);
  expect(found.items.sort(byName)).toMatchObject(expected.sort(byName));
  expect(found.unseen).toEqual(['unheard-of']);

  const dry = await cleanOrphans(deps, { dryRun: true, caller: system });
  expect(dry).toMatchObject({ done: false });
  expect(dry.items).toHaveLength(3);
  expect(await reconciles()).toEqual([]);
  for (const name of ['deleted', 'stranger'])
    expect(
      (await cluster.get({ apiVersion: 'v1', kind: 'Namespace', name: `${prefix}-${name}` }))?.metadata
        .deletionTimestamp,
    ).toBeUndefined();

  // The sweep only reports, but has what should run looked at; once in ten minutes.
  const sweep = makeOrphanSweep({
    ...deps,
    sources: [makeKubernetesOrphans({ ...deps, homeGraceMs: 0 })],
    policy: 'report',
  });
  await sweep.runIfDue();
  expect(sweep.counts().sort((a, b) => (a.kind < b.kind ? -1 : 1))).toEqual([
    { cluster: 'one', provider: 'kubernetes', kind: 'namespace', count: 2 },
    { cluster: 'one', provider: 'kubernetes', kind: 'workspace', count: 1 },
  ]);
  expect(await reconciles()).toEqual([lost]);

  const cleaned = await cleanOrphans(deps, { dryRun: false, caller: system });
  expect(cleaned.done).toBe(true);
  expect(cleaned.items.find(({ name }) => name === `${prefix}-stranger`)!.reason).toBe(
    `Its workspace is not in the database. Its home is retained: the volume ${home}.`,
  );
  for (const name of ['deleted', 'stranger'])
    await vi.waitUntil(
      async () =>
        (await cluster.get({ apiVersion: 'v1', kind: 'Namespace', name: `${prefix}-${name}` })) === null,
      { timeout: 60_000, interval: 300 },
    );
  expect(await cluster.get({ apiVersion: 'v1', kind: 'Namespace', name: `${prefix}-living` })).not.toBeNull();
  const volume = await cluster.get({ apiVersion: 'v1', kind: 'PersistentVolume', name: home });
  expect(volume).toMatchObject({
    metadata: { labels: { 'cde.dev/workspace': stranger, 'cde.dev/owner': 'ada', 'cde.dev/home': 'kept' } },
    spec: { persistentVolumeReclaimPolicy: 'Retain' },
  });

  const { rows } = await database.pool.query(
    "SELECT actor, action, target_name FROM audit WHERE action = 'cluster.clean-orphan' AND actor = 'system' ORDER BY target_name",
  );
  expect(rows).toEqual([
    { actor: 'system', action: 'cluster.clean-orphan', target_name: `one/${prefix}-deleted` },
    { actor: 'system', action: 'cluster.clean-orphan', target_name: `one/${prefix}-stranger` },
  ]);

  // Now the home is what nobody knows: kept, and said.
  const after = await findOrphans(deps);
  expect(after.items).toMatchObject([
    { kind: 'workspace', name: 'ada/lost' },
    { kind: 'home', name: home, action: 'keep' },
  ]);
});

test('nothing on an unreachable cluster counts as an orphan', async () => {
  await makeRow('elsewhere', 'running', { cluster: 'unheard-of' });
  const away = connections.get('one')!;
  const blind: Connections = {
    ...connections,
    all: () => [
      { ...away, view: away.view, record: away.record, client: away.client, state: 'away', reason: 'test' },
    ],
  };
  const found = await findOrphans({ ...deps, connections: blind });
  expect(found).toEqual({ items: [], unseen: ['one', 'unheard-of'] });
});
