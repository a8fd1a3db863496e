import { eq } from 'drizzle-orm';
import { v7 } from 'uuid';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { builds, workspaces } from '../database/schema.ts';
import type { Provider, ProviderNode, ProviderNodes } from '../providers/provider.ts';
import { makeTestServer, type TestServer, type TestUser } from '../testing.ts';
import { readLog } from '../workspaces/builds/build-log.ts';
import { makeIncidentLog } from './incidents.ts';

const v1 = '/api/v1';
let server: TestServer;
let admin: TestUser;
let ada: TestUser;
let web: { id: string; buildId: string };
let answer: ProviderNodes;
let calls = 0;

const resources = { cpus: 4, memoryBytes: 2 ** 34, storageBytes: null, pods: 110 };
const node = (name: string, more: Partial<ProviderNode> = {}): ProviderNode => ({
  name,
  cluster: 'eu',
  state: 'ready',
  reason: null,
  schedulable: true,
  pool: null,
  os: 'Debian',
  kernel: '6.18',
  architecture: 'amd64',
  runtime: null,
  capacity: resources,
  allocatable: resources,
  workspaceIds: [],
  kernelProfiles: [],
  kernelFault: null,
  notRestored: [],
  ...more,
});
const profile = (name: string, state: 'ready' | 'not-ready') => ({
  name,
  state,
  reason: state === 'ready' ? null : 'contested',
  message: null,
  since: null,
  lastDrift: null,
});

async function addWorkspace(
  owner: TestUser,
  name: string,
  provider: string,
  status: 'running' | 'stopped' = 'running',
) {
  const { db } = server.database;
  const template = await server.request(admin, 'GET', `${v1}/templates/nodes`);
  const [id, buildId] = [v7(), v7()];
  const { id: templateId, activeVersion } = template.body;
  await db.insert(workspaces).values({
    id,
    ownerId: owner.id,
    name,
    templateId,
    templateVersionId: activeVersion.id,
    provider,
    desired: status,
    status,
  });
  await db.insert(builds).values({
    id: buildId,
    workspaceId: id,
    number: 1,
    transition: 'start',
    status: 'succeeded',
    templateVersionId: activeVersion.id,
    parameters: {},
    initiator: owner.username,
  });
  await db.update(workspaces).set({ currentBuildId: buildId }).where(eq(workspaces.id, id));
  return { id, buildId };
}

beforeAll(async () => {
  server = await makeTestServer();
  admin = await server.addUser('boss', 'owner');
  ada = await server.addUser('ada');
  await server.request(admin, 'POST', `${v1}/templates`, {
    files: { 'template.yaml': 'name: nodes\nprovider: local\n' },
  });
  web = await addWorkspace(ada, 'web', 'kubernetes');
  await addWorkspace(ada, 'here', 'local');
  await addWorkspace(ada, 'stopped', 'local', 'stopped');
  await addWorkspace(admin, 'there', 'local');
  answer = {
    nodes: [
      node('b', { workspaceIds: [web.id], kernelProfiles: [profile('scylla', 'ready')] }),
      node('a', { kernelProfiles: [profile('scylla', 'not-ready')] }),
      node('twin'),
      node('twin', { cluster: 'us', state: 'not-ready' }),
    ],
    unseen: [{ name: 'asia', reason: 'It does not answer.' }],
  };
  const { providers } = server.app;
  providers.set('kubernetes', {
    nodes: async () => {
      calls++;
      return answer;
    },
  } as unknown as Provider);
  providers.set('local', {
    ...providers.get('local')!,
    nodes: async () => ({ nodes: [node('Host', { cluster: null, workspaceIds: null })], unseen: [] }),
  });
});
afterAll(() => {
  server.app.providers.delete('kubernetes');
  return server.close();
});

const list = async (query = '') => (await server.request(admin, 'GET', `${v1}/nodes${query}`)).body;
const names = async (query: string) => (await list(query)).items.map(({ name }: ProviderNode) => name);

test('hosts come first, then the nodes of clusters; pages follow each other', async () => {
  const all = await list();
  expect(all.items.map((one: ProviderNode) => [one.cluster, one.name])).toEqual([
    [null, 'Host'],
    ['eu', 'a'],
    ['eu', 'b'],
    ['eu', 'twin'],
    ['us', 'twin'],
  ]);
  expect(all.unseen).toEqual([{ name: 'asia', reason: 'It does not answer.' }]);
  expect(all.items[0]).toMatchObject({ provider: 'local', workspaces: 2 });
  expect(all.items[2]).toMatchObject({ provider: 'kubernetes', workspaces: 1 });
  const first = await list('?limit=2');
  const second = await list(`?limit=2&after=${first.next}`);
  const third = await list(`?limit=2&after=${second.next}`);
  expect([first, second, third].flatMap(({ items }) => items)).toEqual(all.items);
  expect(third.next).toBeNull();
  expect((await server.request(admin, 'GET', `${v1}/nodes?after=nonsense`)).status).toBe(400);
});

test('filters', async () => {
  expect(await names('?cluster=us')).toEqual(['twin']);
  expect(await names('?profile=scylla')).toEqual(['a', 'b']);
  expect(await names('?show=problems')).toEqual(['a', 'twin']);
  expect(await names('?search=WI')).toEqual(['twin', 'twin']);
  expect(await names('?search=host')).toEqual(['Host']);
  expect(await names('?workspace=ada/web')).toEqual(['b']);
  expect(await names('?workspace=ada/here')).toEqual(['Host']);
  expect(await names('?workspace=ada/stopped')).toEqual([]);
  expect((await server.request(admin, 'GET', `${v1}/nodes?workspace=ada/none`)).body.code).toBe(
    'workspace-not-found',
  );
});

test('a node shows its workspaces; a name that several clusters have needs the cluster', async () => {
  const show = (name: string) => server.request(admin, 'GET', `${v1}/nodes/${name}`);
  expect((await show('b')).body).toMatchObject({
    workspaces: 1,
    onNode: [{ id: web.id, owner: 'ada', name: 'web', status: 'running' }],
  });
  expect((await show('local~Host')).body.onNode.map(({ name }: { name: string }) => name)).toEqual([
    'here',
    'there',
  ]);
  expect((await show('twin')).body).toMatchObject({
    code: 'node-ambiguous',
    hint: expect.stringContaining('eu/twin, us/twin'),
  });
  expect((await show('us~twin')).body).toMatchObject({ cluster: 'us', state: 'not-ready' });
  expect((await show('none')).body).toMatchObject({
    code: 'node-not-found',
    detail: expect.stringContaining('asia (It does not answer.)'),
  });
});

test('a thousand nodes are one question to the provider and one to the database', async () => {
  const before = answer;
  answer = { nodes: Array.from({ length: 1000 }, (_, index) => node(`n${index}`)), unseen: [] };
  calls = 0;
  try {
    let after = '';
    const seen = new Set<string>();
    let pages = 0;
    do {
      const page = await list(`?cluster=eu&limit=100${after}`);
      for (const { name } of page.items) seen.add(name);
      pages++;
      after = page.next === null ? '' : `&after=${page.next}`;
    } while (after !== '');
    expect([seen.size, pages, calls]).toEqual([1000, 10, 10]);
  } finally {
    answer = before;
  }
});

test('an incident of a node is one line in the log of the build, also if each replica reports it twice', async () => {
  const { database, bus, app } = server;
  const incident = {
    workspaceId: web.id,
    key: 'uid-b scylla drift 2026-01-01T12:05:00.000Z',
    at: new Date('2026-01-01T12:05:00.000Z'),
    level: 'warn' as const,
    text: 'The node b drifted.',
  };
  const replicas = [1, 2].map(() => makeIncidentLog({ database, bus, log: app.log as never }));
  for (const replica of replicas) {
    replica.record(incident);
    replica.record(incident);
    replica.record({ ...incident, workspaceId: v7() });
  }
  await Promise.all(replicas.map((replica) => replica.settled()));
  replicas[0]!.record({ ...incident, key: 'another' });
  await replicas[0]!.settled();
  const lines = await readLog(database.db, web.buildId, 0, 100);
  expect(lines.map(({ source, level, text }) => ({ source, level, text }))).toEqual(
    Array(2).fill({ source: 'provider', level: 'warn', text: 'The node b drifted.' }),
  );
});
