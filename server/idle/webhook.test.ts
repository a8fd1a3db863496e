import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type IncomingHttpHeaders, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { v7 } from 'uuid';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { until } from '../../tests/kit/until.ts';
import { readConfig } from '../config.ts';
import { type ControlPlane, startControlPlane } from '../control-plane.ts';
import { activityEvents } from '../database/idle-schema.ts';
import { templates, templateVersions, workspaces } from '../database/schema.ts';
import { makeLog } from '../log.ts';
import { addUser, makeTestDatabase, type TestDatabase, type TestUser } from '../testing.ts';
import { makeScriptedProvider } from '../workspaces/scripted-provider.ts';
import { insertEvents, type NewEvent } from './activity-store.ts';
import { enqueueAlerts } from './alerts.ts';
import { defaultCleanupPolicy } from './settings.ts';
import { makeWebhook, signature, type WebhookBody } from './webhook.ts';

const secret = 'a secret of the receiver';
let database: TestDatabase;
let server: ControlPlane;
let folder: string;
let admin: TestUser;
let workspaceId: string;
let receiver: Server;
let url: string;
let received: { headers: IncomingHttpHeaders; text: string; body: WebhookBody }[] = [];
/** The replies to the next deliveries; then 204. */
let replies: { status: number; location?: string }[] = [];

beforeAll(async () => {
  database = await makeTestDatabase();
  folder = await mkdtemp(join(tmpdir(), 'cde-data-'));
  server = await startControlPlane({
    config: readConfig([], { CDE_DATA_DIR: folder, CDE_LISTEN: '127.0.0.1:0' }),
    database,
    log: makeLog('silent'),
    providers: new Map([['local', makeScriptedProvider()]]),
    checkReplies: true,
  });
  admin = await addUser(database, 'ada', 'owner');
  const [templateId, versionId] = [v7(), v7()];
  workspaceId = v7();
  await database.db.insert(templates).values({ id: templateId, name: 'go' });
  await database.db.insert(templateVersions).values({
    id: versionId,
    templateId,
    number: 1,
    files: {},
    filesHash: Buffer.alloc(1),
    content: {} as never,
  });
  await database.db.insert(workspaces).values({
    id: workspaceId,
    ownerId: admin.id,
    name: 'web',
    templateId,
    templateVersionId: versionId,
    provider: 'local',
    desired: 'stopped',
    status: 'stopped',
  });
  receiver = createServer((request, response) => {
    let text = '';
    request.on('data', (chunk) => {
      text += String(chunk);
    });
    request.on('end', () => {
      received.push({ headers: request.headers, text, body: JSON.parse(text) as WebhookBody });
      const { status, location } = replies.shift() ?? { status: 204 };
      response.writeHead(status, location ? { location } : {}).end();
    });
  });
  await new Promise<void>((resolve) => receiver.listen(0, '127.0.0.1', resolve));
  url = `http://127.0.0.1:${(receiver.address() as AddressInfo).port}/hook`;
});
afterAll(async () => {
  receiver?.close();
  await server?.stop();
  await database?.drop();
  await rm(folder, { recursive: true, force: true });
});

async function setWebhook(webhook: { url: string; secret?: string } | null): Promise<void> {
  const reply = await fetch(`${server.url}/api/v1/cleanup/policy`, {
    method: 'PUT',
    headers: { authorization: `Bearer ${admin.token}`, 'content-type': 'application/json' },
    body: JSON.stringify({ ...defaultCleanupPolicy, webhook }),
  });
  expect([reply.status, await reply.json()]).toEqual([
    200,
    { ...defaultCleanupPolicy, etag: expect.any(String), webhook: webhook && { url: webhook.url } },
  ]);
}

const record = (event: Partial<NewEvent> & Pick<NewEvent, 'kind'>) =>
  database.db.transaction((tx) =>
    insertEvents(tx, [{ workspaceId, at: Date.now(), text: 'stops in 15 min', ...event }]),
  );
const jobs = async () =>
  (
    await database.pool.query<{ attempts: number; last_error: string | null }>(
      "SELECT attempts, last_error FROM graphile_worker.jobs WHERE task_identifier = 'webhook'",
    )
  ).rows;

test('a warning is posted once, signed, with one action that keeps the workspace awake', async () => {
  await setWebhook({ url, secret });
  await record({ kind: 'warned', cause: 'idle' });
  await until(() => received.length > 0, 'a delivery');
  const { headers, text, body } = received[0]!;
  expect(body).toMatchObject({
    kind: 'warned',
    workspace: { id: workspaceId, name: 'ada/web', owner: 'ada' },
    cause: 'idle',
    text: 'stops in 15 min',
    action: { label: 'Keep awake', url: `${new URL(server.url).origin}/workspaces/ada/web` },
  });
  expect(headers['cde-event-id']).toBe(body.id);
  const [, seconds] = /^t=(\d+),v1=[0-9a-f]{64}$/.exec(String(headers['cde-signature']))!;
  expect(headers['cde-signature']).toBe(signature(secret, new Date(Number(seconds) * 1000), text));
  await until(jobs, (left) => left.length === 0);
  expect(received).toHaveLength(1);
});

test('a warning of a stop that nothing postpones has no action', async () => {
  received = [];
  await record({ kind: 'warned', cause: 'max-run' });
  await until(() => received.length > 0, 'a delivery');
  expect(received[0]!.body).toMatchObject({ kind: 'warned', cause: 'max-run', action: null });
  await until(jobs, (left) => left.length === 0);
});

test('what is wrong with the installation is posted, and that it is over', async () => {
  received = [];
  const finding = {
    ...{ code: 'satellite-offline', severity: 'error' as const, message: 'The satellite tokyo is silent.' },
    ...{ dependsOn: [], target: 'tokyo' },
  };
  const [key, since] = ['satellite-offline:tokyo', new Date('2026-04-01T12:00:00Z')];
  await database.db.transaction((tx) =>
    enqueueAlerts(tx, [{ kind: 'health-raised', key, since, finding }], {
      ...{ now: new Date(), accessUrl: server.url },
    }),
  );
  await until(() => received.length > 0, 'a delivery');
  const { body, headers, text } = received[0]!;
  expect(body).toMatchObject({
    ...{ kind: 'health-raised', key, code: 'satellite-offline', severity: 'error', target: 'tokyo' },
    ...{ since: since.toISOString(), text: 'The satellite tokyo is silent.' },
    action: { label: 'Show', url: `${new URL(server.url).origin}/health` },
  });
  const [, seconds] = /^t=(\d+),/.exec(String(headers['cde-signature']))!;
  expect(headers['cde-signature']).toBe(signature(secret, new Date(Number(seconds) * 1000), text));
  await until(jobs, (left) => left.length === 0);
});

test('stops and vetoes are posted, and the rest of the timeline is not', async () => {
  received = [];
  await record({ kind: 'signal', signal: 'process-cpu', text: 'used the CPU' });
  await record({ kind: 'stop-vetoed', text: 'stays awake' });
  await record({ kind: 'stopped', cause: 'idle', text: 'stopped because it was idle' });
  await until(() => received.length === 2, 'two deliveries');
  expect(received.map(({ body }) => body.kind).sort()).toEqual(['stop-vetoed', 'stopped']);
  expect(received.every(({ body }) => body.action === null)).toBe(true);
});

test('a receiver that fails gets the same event again', async () => {
  received = [];
  replies = [{ status: 500 }];
  await record({ kind: 'stopped', cause: 'schedule' });
  await until(() => received.length === 2, 'two deliveries');
  expect(received[0]!.body).toEqual(received[1]!.body);
});

test('redirects are not followed', async () => {
  received = [];
  replies = Array(8).fill({ status: 302, location: 'http://169.254.169.254/' });
  await record({ kind: 'stopped' });
  await until(jobs, (left) => left.some(({ last_error }) => last_error?.includes('replied with 302')));
  await database.pool.query(
    "SELECT graphile_worker.remove_job(key) FROM graphile_worker.jobs WHERE key LIKE 'webhook:%'",
  );
  replies = [];
});

test('a name that leads to a metadata service after it was set gets nothing', async () => {
  const deliver = (target: string, accessUrl = 'https://cde.example.com') =>
    makeWebhook({
      database,
      settings: { webhook: async () => ({ url: target, secret: null }) },
      now: () => new Date(),
      accessUrl: () => accessUrl,
    });
  const [event] = await database.db.select().from(activityEvents).limit(1);
  await expect(deliver('http://169.254.169.254/')(event!.id)).rejects.toThrow(/metadata/);
  await expect(deliver('http://169.254.169.254/', 'http://127.0.0.1:1')(event!.id)).rejects.toThrow(
    /metadata/,
  );
  await expect(deliver(url)(event!.id)).rejects.toThrow(/loopback/);
  await expect(deliver('http://receiver.invalid/')(event!.id)).rejects.toThrow(/cannot be resolved/);
});

test('a warning that could not be delivered for 15 minutes is dropped', async () => {
  received = [];
  await record({ kind: 'warned', at: Date.now() - 16 * 60_000 });
  await until(jobs, (left) => left.length === 0);
  expect(received).toEqual([]);
});

test('without a webhook nothing is queued', async () => {
  await setWebhook(null);
  await record({ kind: 'stopped' });
  expect(await jobs()).toEqual([]);
});
