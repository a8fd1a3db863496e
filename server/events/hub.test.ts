import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ServerMessage } from '@cde/api/events.ts';
import type { LogLine } from '@cde/api/workspaces.ts';
import type { FastifyInstance } from 'fastify';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import WebSocket from 'ws';
import { until } from '../../tests/kit/until.ts';
import { basePlugin } from '../base.ts';
import { readConfig } from '../config.ts';
import { makeFastify } from '../http/fastify.ts';
import { httpPlugin } from '../http/plugin.ts';
import { identityPlugin } from '../identity/plugin.ts';
import { makeLog } from '../log.ts';
import { addUser, makeTestDatabase, type TestDatabase, type TestUser } from '../testing.ts';
import type { TopicReader } from './hub.ts';
import { eventsPlugin, hubPlugin } from './plugin.ts';

/** The hub on a real listener, with topics of this test. */
let database: TestDatabase;
let app: FastifyInstance;
let dataDir: string;
let url: string;
let ada: TestUser;
let grace: TestUser;

/** Workspace `web` and its builds, which have numbers for ids, belong to ada. */
let log: LogLine[] = [];
let reads = 0;
/** Makes a message of a workspace as large as the test needs. */
let padding = '';
const reader: TopicReader = {
  canRead: (actor, ownerId) => actor.userId === ownerId || actor.role === 'owner',
  async workspace(id) {
    reads++;
    if (id !== 'web') return null;
    return { ownerId: ada.id, message: (topic) => ({ type: 'workspace-gone', topic, id: `web${padding}` }) };
  },
  async build(id) {
    if (!/^\d+$/.test(id)) return null;
    return { ownerId: ada.id, message: (topic) => ({ type: 'build', topic, build: { id } as never }) };
  },
  log: async (_buildId, after) => log.filter(({ seq }) => seq > after).slice(0, 2),
  redactLines: (lines) => lines.map((line) => ({ ...line, text: 'redacted' })),
  logEnd: async () => log.at(-1)?.seq ?? 0,
};

beforeAll(async () => {
  database = await makeTestDatabase();
  dataDir = await mkdtemp(join(tmpdir(), 'cde-hub-'));
  const config = readConfig([], {
    CDE_DATA_DIR: dataDir,
    CDE_SECRET_KEY: 'a secret key for tests, 32 long.',
  });
  app = makeFastify({ config, log: makeLog('silent') });
  await app.register(basePlugin, { config, database });
  await app.register(httpPlugin, { checkReplies: true });
  await app.register(eventsPlugin);
  await app.register(identityPlugin);
  await app.register(hubPlugin, { reader });
  url = (await app.listen({ host: '127.0.0.1', port: 0 })).replace('http', 'ws');
  ada = await addUser(database, 'ada');
  grace = await addUser(database, 'grace', 'owner');
});
afterAll(async () => {
  await app?.close();
  await database?.drop();
  await rm(dataDir, { recursive: true, force: true });
});
beforeEach(() => {
  log = [];
  reads = 0;
  padding = '';
});
const sockets = new Set<WebSocket>();
afterEach(() => {
  for (const socket of sockets) socket.terminate();
  sockets.clear();
});

interface Dashboard {
  socket: WebSocket;
  received: ServerMessage[];
  /** Waits for the first message of this type after those that were already waited for. */
  next<T extends ServerMessage['type']>(type: T): Promise<Extract<ServerMessage, { type: T }>>;
  send(type: 'subscribe' | 'unsubscribe', topic: string): void;
  subscribe(topic: string): Promise<void>;
}

async function dashboard(user: TestUser): Promise<Dashboard> {
  const socket = new WebSocket(`${url}/api/v1/events`, {
    headers: { authorization: `Bearer ${user.token}` },
  });
  sockets.add(socket);
  const received: ServerMessage[] = [];
  let position = 0;
  socket.on('message', (data) => received.push(JSON.parse(String(data))));
  await once(socket, 'open');
  const send = (type: string, topic: string) => socket.send(JSON.stringify({ type, topic }));
  const self: Dashboard = {
    socket,
    received,
    async next(type) {
      const index = await until(
        () => received.findIndex((message, at) => at >= position && message.type === type),
        (at) => at >= 0,
      );
      position = index + 1;
      return received[index] as never;
    },
    send,
    async subscribe(topic) {
      send('subscribe', topic);
      while ((await self.next('subscribed')).topic !== topic);
    },
  };
  return self;
}

test('a subscriber gets the changes of its topics, and of no others', async () => {
  const one = await dashboard(ada);
  const all = await dashboard(ada);
  await one.subscribe('workspace:web');
  await all.subscribe('workspaces');
  app.bus.publish({ workspaceId: 'web' });
  expect(await one.next('workspace-gone')).toEqual({
    type: 'workspace-gone',
    topic: 'workspace:web',
    id: 'web',
  });
  expect(await all.next('workspace-gone')).toMatchObject({ topic: 'workspaces' });

  one.send('unsubscribe', 'workspace:web');
  await one.subscribe('workspaces');
  app.bus.publish({ workspaceId: 'web' });
  expect(await one.next('workspace-gone')).toMatchObject({ topic: 'workspaces' });
  expect(one.received.filter(({ type }) => type === 'workspace-gone')).toHaveLength(2);
});

test('many changes at once are one message, and a workspace is read once for all subscribers', async () => {
  const [one, two] = [await dashboard(ada), await dashboard(grace)];
  for (const each of [one, two]) await each.subscribe('workspace:web');
  reads = 0;
  for (let count = 0; count < 50; count++) app.bus.publish({ workspaceId: 'web' });
  for (const each of [one, two]) await each.next('workspace-gone');
  // What follows another change comes after everything that the first ones caused.
  app.bus.publish({ workspaceId: 'web' });
  for (const each of [one, two]) {
    await each.next('workspace-gone');
    expect(each.received.filter(({ type }) => type === 'workspace-gone')).toHaveLength(2);
  }
  expect(reads).toBe(2);
});

test('a workspace that no dashboard shows is not read', async () => {
  const elsewhere = await dashboard(ada);
  await elsewhere.subscribe('build:1');
  app.bus.publish({ workspaceId: 'web' });
  app.bus.publish({ workspaceId: 'web', buildId: '1' });
  await elsewhere.next('build');
  expect(reads).toBe(0);
});

test('what a user cannot read is not found, and does not appear among the workspaces', async () => {
  const mallory = await addUser(database, 'mallory');
  const other = await dashboard(mallory);
  for (const topic of ['workspace:web', 'build:1', 'workspace:none', 'nonsense', 'workspace:']) {
    other.send('subscribe', topic);
    expect(await other.next('error')).toEqual({
      type: 'error',
      topic,
      code: 'not-found',
      message: `There is no ${topic} that you can see.`,
    });
  }
  await other.subscribe('workspaces');
  const own = await dashboard(ada);
  await own.subscribe('workspaces');
  app.bus.publish({ workspaceId: 'web' });
  await own.next('workspace-gone');
  await other.subscribe('workspaces');
  expect(other.received.map(({ type }) => type)).not.toContain('workspace-gone');
});

test('a log arrives complete and in order; script output is redacted for everybody but the owner', async () => {
  const line = (seq: number): LogLine => ({
    seq,
    at: new Date(0).toISOString(),
    stage: 'startup',
    source: 'startup',
    level: 'info',
    text: `line ${seq}`,
  });
  log = [line(1), line(2)];
  const [owner, admin] = [await dashboard(ada), await dashboard(grace)];
  for (const each of [owner, admin]) await each.subscribe('build:1');
  log = [1, 2, 3, 4, 5, 6, 7].map(line);
  app.bus.publish({ workspaceId: 'web', buildId: '1' });
  const textsOf = async (each: Dashboard) => {
    expect(await each.next('build')).toMatchObject({ topic: 'build:1', build: { id: '1' } });
    return each.received.flatMap((message) =>
      message.type === 'log' ? message.lines.map(({ seq, text }) => `${seq} ${text}`) : [],
    );
  };
  // Lines from before the subscription are fetched, not sent.
  expect(await textsOf(owner)).toEqual([3, 4, 5, 6, 7].map((seq) => `${seq} line ${seq}`));
  expect(await textsOf(admin)).toEqual([3, 4, 5, 6, 7].map((seq) => `${seq} redacted`));
});

test('a slow subscriber misses messages, is told to fetch again, and delays nobody', async () => {
  const [slow, fast] = [await dashboard(ada), await dashboard(ada)];
  for (const each of [slow, fast]) await each.subscribe('workspace:web');
  slow.socket.pause();
  padding = 'x'.repeat(512 * 1024);
  const rounds = 40;
  for (let round = 0; round < rounds; round++) {
    app.bus.publish({ workspaceId: 'web' });
    await fast.next('workspace-gone');
  }
  slow.socket.resume();
  expect(await slow.next('resync')).toEqual({ type: 'resync', topic: 'workspace:web' });
  const count = slow.received.filter(({ type }) => type === 'workspace-gone').length;
  expect(count).toBeGreaterThan(0);
  expect(count).toBeLessThan(rounds);
  expect(fast.received.map(({ type }) => type)).not.toContain('resync');

  padding = '';
  app.bus.publish({ workspaceId: 'web' });
  expect(await slow.next('workspace-gone')).toMatchObject({ id: 'web' });
});

test('at most 500 topics at once', async () => {
  const greedy = await dashboard(ada);
  for (let count = 1; count < 500; count++) greedy.send('subscribe', `build:${count}`);
  await greedy.subscribe('build:500');
  greedy.send('subscribe', 'build:501');
  expect(await greedy.next('error')).toMatchObject({ topic: 'build:501', code: 'too-many-topics' });
  greedy.send('unsubscribe', 'build:1');
  await greedy.subscribe('build:501');
});

test('a server that closes ends the connections of its dashboards', async () => {
  const open = await dashboard(ada);
  const closed = once(open.socket, 'close');
  await app.close();
  await closed;
});
