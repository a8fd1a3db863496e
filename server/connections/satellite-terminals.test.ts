import { probePath, type TerminalRoutes } from '@cde/api/satellite-terminals.ts';
import type { ConnectionSection } from '@cde/api/template-file.ts';
import { makeClientKey } from '@cde/tunnel/auth/keys.ts';
import { verifyTicket } from '@cde/tunnel/auth/ticket.ts';
import { relayPaths } from '@cde/tunnel/paths/relay-protocol.ts';
import { eq, sql } from 'drizzle-orm';
import { v7 } from 'uuid';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { satellites, users, workspaces } from '../database/schema.ts';
import { makeTestServer, type TestServer, type TestUser } from '../testing.ts';

/** Registered satellites that can serve browsers; none of them runs. */
let server: TestServer;
let admin: TestUser;
const tokens = new Map<string, string>();
const began = new Date();

beforeAll(async () => {
  server = await makeTestServer({ CDE_ACCESS_URL: 'https://cde.example.com' });
  admin = await server.addUser('root', 'owner');
  for (const [name, region, url] of [
    ['tokyo', 'ap', 'https://tokyo.example.com'],
    ['dublin', 'eu', 'https://dublin.example.com'],
    ['plain', 'eu', 'http://plain.example.com'],
    ['silent', 'eu', 'https://silent.example.com'],
  ] as const) {
    const made = await server.request(admin, 'POST', '/api/v1/satellites', { name, region });
    tokens.set(name, made.body.token);
    await asSatellite(name, 'register', { url, version: '1', hostname: name });
    if (name !== 'silent') await setWeb(name, true);
  }
});
beforeEach(async () => {
  server.clock.at = new Date(began);
  await setWeb('tokyo', true);
});
afterAll(() => server.close());

async function asSatellite(name: string, path: string, body: unknown) {
  return server.request(null, 'POST', `/api/v1/satellite/${path}`, body, {
    authorization: `Bearer ${tokens.get(name)}`,
  });
}
async function setWeb(name: string, on: boolean): Promise<void> {
  const web = on ? { portHost: null } : null;
  const reply = await server.request(admin, 'PUT', `/api/v1/satellites/${name}/web`, { web });
  expect(reply.status).toBe(200);
}

/** A user with a workspace whose agent has registered, and a signed-in browser. */
async function addDeveloper(connection: ConnectionSection = {}) {
  const name = `u${v7().slice(-6)}`;
  const user = await server.addUser(name);
  const files = { 'template.yaml': `name: ${name}\nprovider: local\n` };
  expect((await server.request(admin, 'POST', '/api/v1/templates', { files })).status).toBe(201);
  const made = await server.request(user, 'POST', '/api/v1/workspaces', { name: 'box', template: name });
  const rtts = { 'https://cde.example.com': 40, 'https://tokyo.example.com': 2 };
  await server.database.db
    .update(workspaces)
    .set({
      status: 'running',
      agentBuildId: sql`current_build_id`,
      agentTlsKey: 'A'.repeat(43),
      agentSshHostKey: 'ssh-ed25519 AAAA',
      agentStats: {
        at: began.toISOString(),
        cpuPercent: 0,
        load1: 0,
        memoryUsedBytes: 0,
        memoryLimitBytes: null,
        homeUsedBytes: 0,
        homeTotalBytes: 0,
        homeFreeBytes: 0,
        homeFullPercent: 0,
        openPorts: [],
        sessions: [],
        satellites: Object.entries(rtts).map(([url, rttMs]) => ({ url, rttMs })),
      },
    })
    .where(eq(workspaces.id, made.body.id));
  // As the first step of a build does.
  await server.database.db.execute(
    sql`UPDATE builds SET rendered = ${JSON.stringify({ connection })}::jsonb WHERE workspace_id = ${made.body.id}`,
  );
  const { headers: browser } = await server.addBrowser(user.id);
  const ways = async (): Promise<TerminalRoutes> => {
    const reply = await server.request(null, 'POST', '/api/v1/workspaces/box/terminal-ways', {}, browser);
    expect(reply.status).toBe(200);
    return reply.body;
  };
  return {
    ...user,
    ways,
    code: async (name = 'tokyo') => (await ways()).satellites.find((each) => each.name === name)!.code,
    signOut: () => server.request(null, 'POST', '/api/v1/auth/sign-out', {}, browser),
    change: (changes: Partial<typeof users.$inferInsert>) =>
      server.database.db.update(users).set(changes).where(eq(users.id, user.id)),
    workspaceId: made.body.id as string,
  };
}

test("a satellite's address has no path, query, fragment or user name", async () => {
  for (const more of ['?x=', '#', '/#x', '/\u001b[31m', ' x', '/\\x'])
    expect(
      await asSatellite('silent', 'register', {
        url: `https://silent.example.com${more}`,
        version: '1',
        hostname: 'silent',
      }),
      more,
    ).toMatchObject({ status: 400 });
  const url = 'https://cde.example.com@silent.example.com';
  const posing = await asSatellite('silent', 'register', { url, version: '1', hostname: 'silent' });
  expect(posing.status).toBe(400);
});

const clientKey = makeClientKey().publicKey;
const open = (name: string, code: string) => asSatellite(name, 'terminals', { code, clientKey });
const check = async (name: string, ...admissions: string[]) =>
  (await asSatellite(name, 'terminals/standing', { admissions })).body;

test('a browser gets the satellites that can serve it, with their round trip to the agent', async () => {
  const ada = await addDeveloper();
  const { own, satellites: found } = await ada.ways();
  expect(own).toEqual({ agentRttMs: 40 });
  // Not `plain`, which an https page cannot reach, nor those that do not serve browsers or pose as the server.
  expect(found).toEqual([
    {
      name: 'dublin',
      region: 'eu',
      url: 'https://dublin.example.com',
      agentRttMs: null,
      code: expect.any(String),
    },
    {
      name: 'tokyo',
      region: 'ap',
      url: 'https://tokyo.example.com',
      agentRttMs: 2,
      code: expect.any(String),
    },
  ]);
  // The dashboard has its own copy of this, as it cannot import the tunnel.
  expect(probePath).toBe(relayPaths.probe);
  // A token has no browser session to bind the code to.
  const byToken = await server.request(ada, 'POST', '/api/v1/workspaces/box/terminal-ways', {});
  expect(byToken).toMatchObject({ status: 200, body: { own: { agentRttMs: 40 }, satellites: [] } });

  await server.request(admin, 'POST', '/api/v1/satellites/dublin/drain', { draining: true });
  expect((await ada.ways()).satellites.map(({ name }) => name)).toEqual(['tokyo']);
  await server.request(admin, 'POST', '/api/v1/satellites/dublin/drain', { draining: false });
});

test.each([
  [{ regions: ['eu'] }, ['dublin']],
  [{ paths: ['direct-tcp' as const] }, []],
])('a template with %j allows %j', async (connection, names) => {
  const ada = await addDeveloper(connection);
  expect((await ada.ways()).satellites.map(({ name }) => name)).toEqual(names);
});

test('a code is exchanged for a ticket that opens only SSH, and only through that satellite', async () => {
  const ada = await addDeveloper();
  const reply = await open('tokyo', await ada.code());
  expect(reply.status).toBe(200);
  const claims = await verifyTicket(reply.body.ticket, [server.keys.tickets.publicKey]);
  // Satellites can read tickets, so names are left out.
  expect([claims.workspace, claims.username]).toEqual(['', '']);
  expect(claims).toMatchObject({
    kind: 'limited',
    only: ['ssh'],
    paths: ['relay'],
    satellites: ['tokyo'],
    userId: ada.id,
    workspaceId: ada.workspaceId,
    clientKey,
  });
  expect(reply.body.admittedUntil).toBe(new Date(began.getTime() + 24 * 3600_000).toISOString());
  expect(await check('tokyo', reply.body.admission)).toEqual({ web: true, ended: [] });
});

test('a code does not work at another satellite, after a minute, or once access is lost', async () => {
  const ada = await addDeveloper();
  const code = await ada.code();
  const refused = async (name: string, text: string, detail?: string) =>
    expect(await open(name, text)).toMatchObject({
      status: 403,
      body: { code: 'forbidden', ...(detail && { detail: expect.stringContaining(detail) }) },
    });
  const off = async (name: string) =>
    expect(await open(name, code)).toMatchObject({ status: 409, body: { code: 'satellite-web-off' } });
  await refused('dublin', code, 'another satellite');
  await off('silent');
  await refused('tokyo', '', 'invalid');
  await refused('tokyo', `${code.slice(0, -2)}AA`, 'invalid');
  await refused('tokyo', (await open('tokyo', code)).body.admission, 'invalid');

  await setWeb('tokyo', false);
  await off('tokyo');
  await setWeb('tokyo', true);
  await ada.change({ status: 'suspended' });
  await refused('tokyo', code);
  await ada.change({ status: 'active' });
  expect((await open('tokyo', code)).status).toBe(200);
  server.clock.at = new Date(began.getTime() + 61_000);
  await refused('tokyo', code, 'a minute old');

  const fresh = await ada.code();
  await ada.signOut();
  await refused('tokyo', fresh);
  // Neither with a user's token nor without one.
  for (const who of [ada, null])
    expect([401, 403]).toContain(
      (await server.request(who, 'POST', '/api/v1/satellite/terminals', { code, clientKey })).status,
    );
});

test('a workspace that is stopped or deleted has no terminal', async () => {
  const ada = await addDeveloper();
  const code = await ada.code();
  const set = (status: 'stopped' | 'deleted') =>
    server.database.db.update(workspaces).set({ status }).where(eq(workspaces.id, ada.workspaceId));
  const { admission } = (await open('tokyo', code)).body;
  await set('stopped');
  expect(await open('tokyo', code)).toMatchObject({ status: 409, body: { code: 'workspace-not-running' } });
  await set('deleted');
  expect((await open('tokyo', code)).status).toBe(403);
  expect(await check('tokyo', admission)).toEqual({ web: true, ended: [0] });
});

test('a check of many terminals returns the ones to end', async () => {
  const people = await Promise.all([addDeveloper(), addDeveloper(), addDeveloper()]);
  const admitted = await Promise.all(
    people.map(async (each) => (await open('tokyo', await each.code())).body.admission as string),
  );
  const code = await people[0]!.code();
  const ended = async () => (await check('tokyo', 'x', ...admitted, code, ...admitted)).ended;
  expect(await ended()).toEqual([0, 4]);
  await people[1]!.signOut();
  expect(await ended()).toEqual([0, 2, 4, 6]);
  await people[2]!.change({ status: 'suspended' });
  expect(await ended()).toEqual([0, 2, 3, 4, 6, 7]);
  // Admissions of another satellite are not valid here.
  expect(await check('dublin', ...admitted)).toEqual({ web: true, ended: [0, 1, 2] });
  await setWeb('tokyo', false);
  expect(await check('tokyo', admitted[0]!)).toEqual({ web: false, ended: [] });
  expect(await check('tokyo')).toEqual({ web: false, ended: [] });
  server.clock.at = new Date(began.getTime() + 25 * 3600_000);
  expect((await check('tokyo', admitted[0]!)).ended).toEqual([0]);
  expect(
    (await asSatellite('tokyo', 'terminals/standing', { admissions: Array(1001).fill('x') })).status,
  ).toBe(400);
  expect(await server.database.db.select().from(satellites)).toHaveLength(tokens.size);
});

test('ports are served over https only if the dashboard is', async () => {
  for (const [name, code] of [
    ['plain', 'satellite-web-off'],
    ['dublin', undefined],
  ] as const) {
    const portHost = `*.${name}.dev.example.com`;
    const put = await server.request(admin, 'PUT', `/api/v1/satellites/${name}/web`, { web: { portHost } });
    expect(put.status).toBe(200);
    const asked = await asSatellite(name, 'port-visits', {
      head: { method: 'GET', url: '/', headers: { host: `3000--box--ada${portHost.slice(1)}` } },
    });
    expect(asked.body.code).toBe(code);
    if (code === undefined)
      expect(asked.body).toMatchObject({ kind: 'refuse', error: { code: 'sign-in-required' } });
    await setWeb(name, true);
  }
});
