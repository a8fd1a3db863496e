import { v7 } from 'uuid';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { cleanupSettings } from '../database/idle-schema.ts';
import { audit } from '../database/schema.ts';
import type { Caller } from '../http/actor.ts';
import { makeTestServer, type TestServer } from '../testing.ts';
import { defaultCleanupPolicy, makeCleanupSettings } from './settings.ts';

let server: TestServer;
let caller: Caller;
beforeAll(async () => {
  server = await makeTestServer();
  const { id, username } = await server.addUser('grace', 'owner');
  caller = {
    actor: { kind: 'user', userId: id, username, role: 'owner', scopes: ['all'], via: { kind: 'token', id } },
    requestId: v7(),
    ip: '203.0.113.9',
  };
});
afterAll(() => server.close());

const make = (accessUrl = 'https://cde.example.com') =>
  makeCleanupSettings({
    database: server.database,
    keys: server.keys,
    now: () => server.clock.at,
    accessUrl: () => accessUrl,
  });
const policy = defaultCleanupPolicy;
const webhook = (url: string, secret?: string) => ({
  ...policy,
  webhook: { url, ...(secret && { secret }) },
});
const receiver = 'https://203.0.113.7/hook';

test('the defaults hold until an admin changes them', async () => {
  expect(await make().read()).toEqual(policy);
});

test('a change is read at once here, by other replicas within seconds, and is audited', async () => {
  const [here, there] = [make(), make()];
  await there.read();
  const changed = { ...policy, brakePercent: 50, holidays: 'BEGIN:VCALENDAR\nEND:VCALENDAR' };
  expect(await here.write(caller, changed)).toMatchObject(changed);
  expect(await here.read()).toEqual(changed);
  expect(await there.read()).toEqual(policy);
  server.clock.at = new Date(server.clock.at.getTime() + 5_000);
  expect(await there.read()).toEqual(changed);
  const entries = await server.database.db.select().from(audit);
  expect(entries.find(({ action }) => action === 'cleanup.policy')).toMatchObject({
    actor: 'grace',
    targetType: 'settings',
    before: { brakePercent: 20, holidays: '' },
    after: { brakePercent: 50, holidays: expect.stringMatching(/^29 characters, sha256 /) },
  });
  await here.write(caller, policy);
});

test("the webhook's secret is never shown, is stored sealed, and stays if it is left out", async () => {
  const settings = make();
  const secret = 'a secret of the receiver';
  const { etag: _, ...shown } = await settings.write(caller, webhook(receiver, secret));
  expect(shown).toEqual(webhook(receiver));
  expect(await settings.read()).toEqual(webhook(receiver));
  expect(await settings.webhook()).toEqual({ url: receiver, secret });
  await settings.write(caller, webhook(`${receiver}/2`));
  expect(await settings.webhook()).toEqual({ url: `${receiver}/2`, secret });
  const stored = JSON.stringify([
    await server.database.db.select().from(cleanupSettings),
    await server.database.db.select().from(audit),
  ]);
  expect(stored).toContain(receiver);
  expect(stored).not.toContain(secret);
  await settings.write(caller, policy);
  expect(await settings.webhook()).toBeNull();
  await settings.write(caller, webhook(receiver));
  expect(await settings.webhook()).toEqual({ url: receiver, secret: null });
});

test.each([
  'http://169.254.169.254/latest',
  'http://[::ffff:169.254.169.254]/',
  'http://0xa9fea9fe/',
  'http://127.0.0.1:5432/',
  'http://localhost/',
  'http://0.0.0.0/',
  'http://[fe80::1]/',
])('a webhook at %s is refused', async (url) => {
  await expect(make().write(caller, webhook(url))).rejects.toMatchObject({
    code: 'bad-request',
    issues: [{ path: 'webhook.url' }],
  });
});

test('on one machine the receiver may be on loopback too, but nothing may be at a metadata service', async () => {
  const local = make('http://127.0.0.1:7080');
  await local.write(caller, webhook('http://127.0.0.1:9000/'));
  await expect(local.write(caller, webhook('http://169.254.169.254/'))).rejects.toMatchObject({
    code: 'bad-request',
  });
});

test('holidays that are no calendar, and bounds that exclude everything, are refused', async () => {
  await expect(make().write(caller, { ...policy, holidays: 'Christmas' })).rejects.toMatchObject({
    code: 'bad-request',
    message: 'The holidays cannot be used.',
    issues: [{ path: 'holidays' }],
  });
  await expect(
    make().write(caller, { ...policy, minStopAfterSeconds: 600, maxStopAfterSeconds: 300 }),
  ).rejects.toMatchObject({
    code: 'bad-request',
    issues: [{ path: 'minStopAfterSeconds', message: 'must be at most 5 min, the longest that is allowed' }],
  });
  await expect(
    make().write(caller, { ...policy, defaultStopAfterSeconds: null, maxStopAfterSeconds: 43_200 }),
  ).rejects.toMatchObject({
    code: 'bad-request',
    message: 'The default cannot be never if the longest time to stop after is 12 h.',
    issues: [{ path: 'defaultStopAfterSeconds' }],
  });
});

test('settings that a newer release added have their default', async () => {
  await server.database.db.update(cleanupSettings).set({ policy: { brakePercent: 33 } as typeof policy });
  expect(await make().read()).toEqual({ ...policy, brakePercent: 33 });
});

test('of two admins who read the same policy, the second is told that it has changed', async () => {
  const [one, two] = [make(), make()];
  const { etag, ...read } = await one.readLatest();
  const saved = await one.write(caller, { ...read, brakePercent: 44, etag });
  await expect(two.write(caller, { ...read, maxNeverStopDays: 1, etag })).rejects.toMatchObject({
    code: 'cleanup-policy-changed',
  });
  expect(await two.readLatest()).toEqual(saved);
  await two.write(caller, { ...saved, maxNeverStopDays: 1 });
  expect(await one.readLatest()).toMatchObject({ brakePercent: 44, maxNeverStopDays: 1 });
  // The secret is part of the version, though it is never shown.
  const before = await one.write(caller, webhook(receiver, 'a secret of the receiver'));
  const after = await one.write(caller, webhook(receiver, 'another secret of it'));
  expect(after.etag).not.toBe(before.etag);
});
