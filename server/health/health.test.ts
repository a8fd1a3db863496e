import type { Node } from '@cde/api/nodes.ts';
import type { Satellite } from '@cde/api/satellites.ts';
import { v7 } from 'uuid';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { recordings } from '../database/diagnosis-schema.ts';
import type { Database } from '../database/pool.ts';
import { builds, clusters, templates, templateVersions, workspaces } from '../database/schema.ts';
import { makeTestServer, type TestServer, type TestUser } from '../testing.ts';
import type { HealthSources } from './checks.ts';
import { makeHealth } from './health.ts';

let server: TestServer;
let ada: TestUser;
let workspaceId: string;
let sources: HealthSources;
let announced: { kind: string; key: string }[] = [];
let now = new Date('2026-04-01T12:00:00Z');

beforeAll(async () => {
  server = await makeTestServer();
  ada = await server.addUser('ada', 'owner');
  const { db } = server.database;
  const [templateId, versionId] = [v7(), v7()];
  workspaceId = v7();
  await db.insert(templates).values({ id: templateId, name: 'go' });
  await db.insert(templateVersions).values({
    ...{ id: versionId, templateId, number: 1, files: {}, filesHash: Buffer.alloc(1), content: {} as never },
  });
  await db.insert(workspaces).values({
    ...{ id: workspaceId, ownerId: ada.id, name: 'web', templateId, templateVersionId: versionId },
    ...{ provider: 'local', desired: 'running', status: 'running', agentVersion: '0.0.1' },
    agentStats: { homeUsedBytes: 95, homeTotalBytes: 100 } as never,
  });
  await db.insert(builds).values({
    ...{ id: v7(), workspaceId, number: 1, transition: 'start', status: 'running' },
    ...{ templateVersionId: versionId, parameters: {}, initiator: 'ada' },
    createdAt: new Date(now.getTime() - 3_600_000),
  });
  await db.insert(recordings).values({
    ...{ id: v7(), workspaceId, userId: ada.id, clientVersion: '1', platform: 'linux', lastBatch: 1 },
    ...{ eventCount: 0, startedAt: now, knownUntil: now, lastWindowAt: now },
    rollUpAt: new Date(now.getTime() - 3_600_000),
  });
});
afterAll(() => server.close());
beforeEach(() => {
  announced = [];
  sources = {
    ...{ database: server.database, now: () => now, version: '0.0.1' },
    ...{ newestMigration: async () => 9_999, satellites: async () => [], nodes: async () => [] },
    ...{ otherReplicas: async () => [], certificateEnd: async () => null },
    // These tests also run on machines that are busy.
    slowDatabaseMs: Number.POSITIVE_INFINITY,
  };
});

const make = () =>
  makeHealth({
    sources,
    announce: async (_tx, alerts) => {
      announced.push(...alerts.map(({ kind, key }) => ({ kind, key })));
    },
  });
const codes = async () =>
  (await make().read()).findings.map(({ code, target }) => (target ? `${code} ${target}` : code));
const satellite = (name: string, changes: Partial<Satellite> = {}): Satellite => ({
  ...{ id: v7(), name, region: 'eu', state: 'online', url: `https://${name}.example.com`, stun: null },
  ...{ version: '1', hostname: name, load: null, draining: false, web: null },
  ...{ seenAt: now.toISOString(), createdAt: now.toISOString() },
  ...changes,
});
/** Of every test: a stuck build, a full home, and recordings that wait. */
const usual = ['builds-stuck', 'homes-nearly-full', 'recording-backlog'];

test('finds what is wrong with workspaces, builds and recordings, and says whose', async () => {
  expect(await codes()).toEqual(usual);
  const { findings } = await make().read();
  expect(findings[0]).toMatchObject({ severity: 'warning', detail: 'ada/web' });
  sources.version = '0.0.2';
  expect(await codes()).toEqual([...usual, 'agents-outdated']);
  sources.newestMigration = async () => 1;
  expect(await codes()).toContain('migrations-newer');
});

test('finds a slow database, which explains a backlog', async () => {
  sources.slowDatabaseMs = -1;
  expect(await codes()).toEqual(['database-slow', 'builds-stuck', 'homes-nearly-full']);
});

test('finds satellites that are offline or busy, and certificates that end', async () => {
  const load = { sessions: 1, agents: 1, bytesPerSecond: 1, memoryBytes: 1, loopDelayMs: 400 };
  sources.satellites = async () => [
    satellite('tokyo', { state: 'away' }),
    satellite('paris'),
    satellite('lima'),
    satellite('oslo', { state: 'away' }),
  ];
  const inDays = (days: number) => new Date(now.getTime() + days * 86_400_000);
  sources.certificateEnd = async (url) => (url.includes('paris') ? inDays(3) : inDays(90));
  expect(await codes()).toEqual([
    ...['satellite-offline tokyo', 'satellite-offline oslo', 'satellite-certificate-expiring paris'],
    ...usual,
  ]);
  sources.satellites = async () => [satellite('lima', { load })];
  expect(await codes()).toEqual(['satellite-overloaded lima', ...usual]);
  sources.certificateEnd = async () => inDays(-1);
  expect((await make().read()).findings[0]).toMatchObject({
    severity: 'error',
    message: 'The certificate of the satellite lima has expired.',
  });
});

test('a consequence does not hide its cause', async () => {
  const node = {
    ...{ name: 'n1', provider: 'kubernetes', cluster: 'eu', state: 'not-ready', reason: 'NotReady' },
    ...{ kernelProfiles: [{ name: 'scylla', state: 'not-ready', reason: 'contested', message: 'sysctl' }] },
  } as Node;
  sources.nodes = async () => [node];
  expect(await codes()).toEqual(['node-not-ready eu/n1', 'kernel-profile-contested eu/n1', ...usual]);
  await server.database.db.insert(clusters).values({
    ...{ id: v7(), name: 'eu', credentials: 'in-cluster', state: 'away', reason: 'refused' },
  });
  expect(await codes()).toEqual(['cluster-unreachable eu', 'homes-nearly-full', 'recording-backlog']);

  const refused = () => Promise.reject(new Error('connection refused'));
  const unreachable = {
    pool: { query: refused },
    db: { select: () => ({ from: refused }) },
  } as unknown as Database;
  sources.database = unreachable;
  const health = await make().read();
  expect(health.findings.map(({ code }) => code)).toEqual(['database-unreachable']);
  expect(health.checks.find(({ name }) => name === 'satellites')).toEqual({
    ...{ name: 'satellites', state: 'skipped', because: ['database'] },
  });
});

test('a database that stops answering meanwhile is one finding', async () => {
  const timeout = () => Promise.reject(new Error('timeout exceeded when trying to connect'));
  sources.satellites = timeout;
  sources.nodes = timeout;
  const found = (await make().read()).findings.filter(({ severity }) => severity === 'error');
  expect(found.map(({ code, detail }) => [code, detail])).toContainEqual([
    'database-unreachable',
    'timeout exceeded when trying to connect',
  ]);
  expect(found.filter(({ code }) => code === 'database-unreachable')).toHaveLength(1);
});

test('only what stays wrong is announced, once, and it is over when it stays away', async () => {
  const offline = async () => [satellite('tokyo', { state: 'away' })];
  const sweepAfter = async (seconds: number, isOffline: boolean) => {
    now = new Date(now.getTime() + seconds * 1000);
    sources.satellites = isOffline ? offline : async () => [satellite('tokyo')];
    announced = [];
    await make().sweep();
    return announced.filter(({ key }) => key.startsWith('satellite')).map(({ kind }) => kind);
  };
  expect(await sweepAfter(0, true)).toEqual([]);
  const began = now.toISOString();
  expect(await sweepAfter(60, true)).toEqual([]);
  // It flaps.
  expect(await sweepAfter(60, false)).toEqual([]);
  expect(await sweepAfter(60, true)).toEqual(['health-raised']);
  expect(await sweepAfter(60, true)).toEqual([]);
  const { findings } = await make().read();
  expect(findings.find(({ code }) => code === 'satellite-offline')!.since).toBe(began);
  expect(await sweepAfter(200, false)).toEqual([]);
  expect(await sweepAfter(60, true)).toEqual([]);
  expect(await sweepAfter(301, false)).toEqual(['health-resolved']);
  expect(await sweepAfter(301, false)).toEqual([]);
  // One that lasts a moment is never announced.
  expect(await sweepAfter(60, true)).toEqual([]);
  expect(await sweepAfter(301, false)).toEqual([]);
});

test('the route and the sweep of the server use the real sources', async () => {
  const { status, body } = await server.request(ada, 'GET', '/api/v1/health');
  expect(status).toBe(200);
  expect(body.checks.map(({ name }: { name: string }) => name)).toEqual([
    ...['database', 'migrations', 'satellites', 'clusters', 'nodes', 'builds', 'workspaces', 'recordings'],
    'replicas',
  ]);
  expect(body.findings.map(({ code }: { code: string }) => code)).not.toContain('check-failed');
  await server.app.installationHealth.sweep();
});
