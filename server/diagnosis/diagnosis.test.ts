import { randomUUID } from 'node:crypto';
import type { ClientEvent, Incident } from '@cde/api/diagnosis.ts';
import { eq, sql } from 'drizzle-orm';
import { v7 } from 'uuid';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import {
  connectionEvents,
  incidents,
  recordings,
  sessionEvents,
  sessionHours,
  sessionMinutes,
  sessionWindows,
  workspaceWindows,
} from '../database/diagnosis-schema.ts';
import { builds } from '../database/schema.ts';
import { makeTestServer, type TestServer, type TestUser } from '../testing.ts';
import { makePartitions } from './partitions.ts';
import { cleanUpRecordings } from './retention.ts';
import { rollUp } from './rollup.ts';
import {
  addWorkspace,
  type Batch,
  clientWindow,
  idle,
  leg,
  postBatch,
  slept,
  tokyo,
  v1,
  windowsAgo,
} from './testing.ts';

let server: TestServer;
let ada: TestUser;
let bob: TestUser;
let web: string;
/** Of the agent of `web`. */
let agentToken: string;
let versionId: string;

beforeAll(async () => {
  server = await makeTestServer();
  const admin = await server.addUser('adm', 'owner');
  ada = await server.addUser('ada');
  bob = await server.addUser('bob');
  await server.request(admin, 'POST', `${v1}/templates`, {
    files: { 'template.yaml': 'name: plain\nprovider: local\n' },
  });
});
afterAll(() => server.close());
beforeEach(async () => {
  pass(3600_000 * 5);
  ({ id: web, agentToken, versionId } = await addWorkspace(server, ada, `w${randomUUID().slice(0, 8)}`));
});

const pass = (ms: number) => {
  server.clock.at = new Date(server.clock.at.getTime() + ms);
};
const quietMinute = () => windowsAgo(60_000);
const post = (user: TestUser, batch: Batch, workspace = web) => postBatch(server, user, workspace, batch);
const list = async (user: TestUser, query = '') =>
  (await server.request(user, 'GET', `${v1}/incidents?workspace=${web}${query}`)).body as {
    items: Incident[];
    next: string | null;
  };
const agentPost = (body: object) =>
  server.app.inject({
    method: 'POST',
    url: `${v1}/agent/conditions`,
    headers: { authorization: `Bearer ${agentToken}`, 'content-type': 'application/json' },
    payload: JSON.stringify(body),
  });

test('a drop is explained in the reply, and listed for the person whose session it was', async () => {
  const reply = await post(ada, { id: randomUUID(), windows: quietMinute(), events: slept });
  expect(reply.status).toBe(200);
  expect(reply.body.incidents).toMatchObject([
    {
      kind: 'drop',
      cause: 'client-slept',
      segment: 'client',
      path: 'tokyo.example.com',
      summary: '94 s without a connection: this machine slept for 90 s; resumed through tokyo.example.com.',
      at: new Date(server.clock.at.getTime() - 95_000).toISOString(),
      endedAt: new Date(server.clock.at.getTime() - 1_000).toISOString(),
    },
  ]);
  expect((await list(ada)).items).toEqual(reply.body.incidents);
});

test('nobody else sees it, not even an owner of the installation', async () => {
  await post(ada, { id: randomUUID(), events: slept });
  const admin = await server.addUser(`adm${randomUUID().slice(0, 6)}`, 'owner');
  expect((await server.request(admin, 'GET', `${v1}/incidents`)).body.items).toEqual([]);
  expect((await server.request(bob, 'GET', `${v1}/incidents?workspace=${web}`)).status).toBe(404);
  expect((await server.request(bob, 'GET', `${v1}/incidents`)).body.items).toEqual([]);
  expect((await post(bob, { id: randomUUID(), events: slept })).status).toBe(404);
});

test('a batch that is sent twice is stored once', async () => {
  const id = randomUUID();
  await post(ada, { id, windows: quietMinute(), events: slept });
  pass(2_000);
  await post(ada, { id, windows: quietMinute(), events: slept });
  const { db } = server.database;
  expect(await db.$count(sessionEvents, eq(sessionEvents.recordingId, id))).toBe(3);
  expect(await db.$count(sessionWindows, eq(sessionWindows.recordingId, id))).toBe(6);
  expect((await list(ada)).items).toHaveLength(1);
});

test('a client stores no more windows than time has passed', async () => {
  const id = randomUUID();
  const windows = Array.from({ length: 400 }, (_, index) => clientWindow(40_000 - index * 100));
  await post(ada, { id, windows });
  expect(await server.database.db.$count(sessionWindows, eq(sessionWindows.recordingId, id))).toBeLessThan(
    10,
  );
});

test('a client stores no more events than a bad day has', async () => {
  const id = randomUUID();
  const events = Array.from({ length: 200 }, () => ({ kind: 'network-changed' as const, agoMs: 0 }));
  for (let batch = 1; batch <= 11; batch++) await post(ada, { id, batch, events });
  expect(await server.database.db.$count(sessionEvents, eq(sessionEvents.recordingId, id))).toBe(2_000);
});

test('a recording belongs to one person and one workspace', async () => {
  const id = randomUUID();
  await post(ada, { id, events: slept });
  const other = await addWorkspace(server, bob, `b${randomUUID().slice(0, 8)}`);
  const reply = await post(bob, { id, batch: 2, events: slept }, other.id);
  expect(reply).toMatchObject({ status: 400, body: { code: 'bad-request' } });
});

test.each([
  ['an unknown kind of event', { events: [{ kind: 'exploded', agoMs: 0 }] }],
  ['an age from before the flood', { events: [{ kind: 'network-changed', agoMs: 1e12 }] }],
  ['too many windows', { windows: Array.from({ length: 401 }, () => clientWindow(0)) }],
  [
    'text with control characters',
    { events: [{ kind: 'resumed', agoMs: 0, path: { kind: 'relay', via: 'a\u0007b' } }] },
  ],
  ['more than what is asked for', { events: [{ kind: 'network-changed', agoMs: 0, content: 'my keys' }] }],
])('%s is rejected', async (_title, batch) => {
  expect((await post(ada, { id: randomUUID(), ...(batch as object) })).status).toBe(400);
});

test('what the server knows of builds and their causes explains the end of a session', async () => {
  const at = new Date(server.clock.at.getTime() - 20_000);
  await server.database.db.insert(builds).values({
    ...{ id: v7(), workspaceId: web, number: 2, transition: 'start', status: 'succeeded' },
    ...{ templateVersionId: versionId, parameters: {}, initiator: 'system', createdAt: at, finishedAt: at },
    options: { restart: true, endCause: 'node-lost' },
  });
  const { body } = await post(ada, {
    id: randomUUID(),
    events: [
      { kind: 'lost', agoMs: 25_000, path: tokyo, reason: 'agent-lost', silentMs: 0 },
      { kind: 'ended', agoMs: 5_000, reason: 'agent-restarted' },
    ],
  });
  expect(body.incidents).toMatchObject([{ kind: 'ended', cause: 'node-lost', segment: 'node' }]);
});

test('what agents report later changes the explanation', async () => {
  const id = randomUUID();
  const windows = [
    ...quietMinute().slice(0, 4),
    clientWindow(20_000, { toAgent: leg(700) }),
    clientWindow(10_000),
  ];
  const { body } = await post(ada, { id, windows });
  expect(body.incidents).toMatchObject([{ kind: 'slow', cause: 'unknown' }]);

  const starved = { ...idle, throttledPercent: 80 };
  const conditions = { agoMs: 22_000, ms: 10_000, host: starved, outOfMemoryKills: 0 };
  expect((await agentPost({ process: 'a', batch: 1, windows: [conditions] })).statusCode).toBe(204);
  expect((await agentPost({ process: 'a', batch: 1, windows: [conditions] })).statusCode).toBe(204);
  expect(await server.database.db.$count(workspaceWindows, eq(workspaceWindows.workspaceId, web))).toBe(1);
  pass(61_000);
  await server.app.diagnosis.explainDue();
  expect((await list(ada)).items).toMatchObject([
    { id: body.incidents[0].id, kind: 'slow', cause: 'workspace-cpu-starved' },
  ]);
});

test('an incident that went on ends', async () => {
  const id = randomUUID();
  const lost: ClientEvent = {
    kind: 'lost',
    agoMs: 3_000,
    path: tokyo,
    reason: 'satellite-restarted',
    silentMs: 0,
  };
  expect((await post(ada, { id, events: [lost] })).body.incidents).toMatchObject([{ endedAt: null }]);
  pass(4_000);
  const { body } = await post(ada, {
    id,
    batch: 2,
    events: [{ kind: 'resumed', agoMs: 1_000, path: tokyo }],
  });
  expect(body.incidents).toMatchObject([
    { cause: 'satellite-restarted', endedAt: new Date(server.clock.at.getTime() - 1_000).toISOString() },
  ]);
  expect((await list(ada)).items).toHaveLength(1);
});

test('pages and a begin select incidents', async () => {
  const id = randomUUID();
  for (let batch = 1; batch <= 3; batch++) {
    pass(600_000);
    await post(ada, { id, batch, events: slept });
  }
  const all = (await list(ada)).items;
  expect(all).toHaveLength(3);
  const first = await list(ada, '&limit=2');
  const second = await list(ada, `&limit=2&after=${first.next}`);
  expect([...first.items, ...second.items]).toEqual(all);
  expect((await list(ada, `&since=${all[1]!.at}`)).items).toEqual(all.slice(0, 2));
  expect((await server.request(ada, 'GET', `${v1}/incidents?after=nonsense`)).status).toBe(400);
});

test('an agent that registers with a new key has started', async () => {
  const register = (key: string) =>
    server.app.inject({
      method: 'POST',
      url: `${v1}/agent/register`,
      headers: { authorization: `Bearer ${agentToken}`, 'content-type': 'application/json' },
      payload: JSON.stringify({
        tlsPublicKey: `${key.repeat(42)}A`,
        sshHostKey: `ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI${'A'.repeat(43)}`,
        ...{ version: '1', hostname: 'h' },
      }),
    });
  for (const key of ['x', 'x', 'y']) expect((await register(key)).statusCode).toBe(200);
  expect(await server.database.db.$count(connectionEvents, eq(connectionEvents.workspaceId, web))).toBe(2);
});

test('samples are kept for days, minutes for weeks, hours and incidents for a year, and all go with the session', async () => {
  const id = randomUUID();
  await post(ada, { id, windows: quietMinute(), events: slept });
  const { db } = server.database;
  const partitions = makePartitions(db);
  const count = async () => ({
    windows: await db.$count(sessionWindows, eq(sessionWindows.recordingId, id)),
    minutes: await db.$count(sessionMinutes, eq(sessionMinutes.recordingId, id)),
    hours: await db.$count(sessionHours, eq(sessionHours.recordingId, id)),
    events: await db.$count(sessionEvents, eq(sessionEvents.recordingId, id)),
    incidents: await db.$count(incidents, eq(incidents.recordingId, id)),
  });
  const cleanUp = () =>
    cleanUpRecordings(server.database, partitions, server.clock.at, {
      ...{ recordingSampleDays: 2, recordingMinuteDays: 30, recordingDays: 365, recordingGib: 20 },
    });
  pass(1.5 * 86_400_000);
  await partitions.ensureRolledUp();
  while (await rollUp({ database: server.database, now: server.clock.at, regionOf: () => null }));
  await cleanUp();
  const all = await count();
  expect(all).toMatchObject({ windows: 6, events: 3, incidents: 1 });
  expect(all.minutes).toBeGreaterThan(0);
  expect(all.hours).toBeGreaterThan(0);
  pass(2 * 86_400_000);
  await cleanUp();
  expect(await count()).toEqual({ ...all, windows: 0 });
  const { rows } = await db.execute<{ count: number }>(
    sql`SELECT count(*)::int AS count FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhparent WHERE p.relname = 'session_windows'`,
  );
  expect(rows[0]!.count).toBeLessThanOrEqual(4);
  pass(30 * 86_400_000);
  await cleanUp();
  expect(await count()).toEqual({ ...all, windows: 0, minutes: 0, events: 0 });
  await db.delete(recordings).where(eq(recordings.id, id));
  expect(await count()).toEqual({ windows: 0, minutes: 0, hours: 0, events: 0, incidents: 0 });
});
