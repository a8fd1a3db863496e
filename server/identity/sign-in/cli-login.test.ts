import { afterAll, beforeAll, expect, test } from 'vitest';
import { makeTestServer, type TestServer } from '../../testing.ts';
import { maxFailures } from './attempt-limit.ts';

let server: TestServer;
beforeAll(async () => {
  server = await makeTestServer();
});
afterAll(() => server.close());

const start = async (hostname = 'laptop') =>
  (await server.request(null, 'POST', '/api/v1/auth/cli', { hostname })).body;
const poll = async (deviceCode: string) =>
  (await server.request(null, 'POST', '/api/v1/auth/cli/token', { deviceCode })).body;

test('the CLI gets its token once, after a signed-in user approves', async () => {
  const ada = await server.addUser('ada');
  const login = await start();
  expect(login.userCode).toMatch(/^[CDFGHJKLMNPQRTVWXY34679]{4}-[CDFGHJKLMNPQRTVWXY34679]{4}$/);
  expect(login.url).toBe(`${server.config.accessUrl}/cli-login?code=${login.userCode}`);
  expect(await poll(login.deviceCode)).toEqual({ status: 'pending', token: null, username: null });

  const typed = login.userCode.toLowerCase().replace('-', ' ');
  const shown = await server.request(ada, 'GET', `/api/v1/auth/cli/${encodeURIComponent(typed)}`);
  expect(shown).toMatchObject({ status: 200, body: { hostname: 'laptop', ip: '127.0.0.1' } });
  const approve = () => server.request(ada, 'POST', `/api/v1/auth/cli/${login.userCode}/approve`, {});
  expect((await approve()).status).toBe(204);
  expect((await approve()).status).toBe(204);
  const eve = await server.addUser('eve');
  expect(
    (await server.request(eve, 'POST', `/api/v1/auth/cli/${login.userCode}/approve`, {})).body.code,
  ).toBe('cli-login-not-found');

  const polls = await Promise.all([poll(login.deviceCode), poll(login.deviceCode)]);
  const got = polls.filter(({ status }) => status === 'approved');
  expect(got).toHaveLength(1);
  expect(got[0].username).toBe('ada');
  expect(polls.find(({ status }) => status !== 'approved')).toMatchObject({ status: 'expired', token: null });
  expect(await poll(login.deviceCode)).toMatchObject({ status: 'expired' });

  const cli = { ...ada, token: got[0].token };
  expect((await server.request(cli, 'GET', '/api/v1/users/me')).body.username).toBe('ada');
  const [token] = (await server.request(cli, 'GET', '/api/v1/tokens')).body.items;
  expect(token).toMatchObject({ name: 'cde on laptop', scopes: ['all'] });
  const days = (Date.parse(token.expiresAt) - Date.parse(token.createdAt)) / 86_400_000;
  expect(days).toBe(90);
  const owner = await server.addUser('olga', 'owner');
  const rows = (await server.request(owner, 'GET', '/api/v1/audit?actor=ada')).body.items;
  expect(rows.map((row: any) => row.action)).toEqual(['token.create', 'cli-login.approve']);
});

test('a login that is not approved expires', async () => {
  const ada = await server.addUser('amy');
  const login = await start();
  const begin = server.clock.at;
  server.clock.at = new Date(begin.getTime() + 10 * 60_000);
  try {
    expect(await poll(login.deviceCode)).toMatchObject({ status: 'expired' });
    const late = await server.request(ada, 'POST', `/api/v1/auth/cli/${login.userCode}/approve`, {});
    expect(late).toMatchObject({ status: 404, body: { code: 'cli-login-not-found' } });
  } finally {
    server.clock.at = begin;
  }
  expect(await poll('cde_device_unknown')).toMatchObject({ status: 'expired' });
});

test('a login is void if its approver is suspended before the CLI polls', async () => {
  const owner = await server.addUser('otto', 'owner');
  const user = await server.addUser('sid');
  const login = await start();
  await server.request(user, 'POST', `/api/v1/auth/cli/${login.userCode}/approve`, {});
  await server.request(owner, 'PATCH', '/api/v1/users/sid', { status: 'suspended' });
  expect(await poll(login.deviceCode)).toMatchObject({ status: 'expired', token: null });
});

test('guessing codes is limited, and a read-only token cannot approve', async () => {
  const eve = await server.addUser('eva');
  for (let n = 0; n < maxFailures; n++)
    expect((await server.request(eve, 'GET', '/api/v1/auth/cli/CCCC-CCCC')).status).toBe(404);
  const refused = await server.request(eve, 'POST', '/api/v1/auth/cli/CCCC-CCCC/approve', {});
  expect(refused).toMatchObject({ status: 429, body: { code: 'sign-in-throttled' } });
  const reader = await server.addUser('ron', 'member', ['read']);
  const login = await start();
  const narrow = await server.request(reader, 'POST', `/api/v1/auth/cli/${login.userCode}/approve`, {});
  expect(narrow).toMatchObject({ status: 403, body: { code: 'scope-too-small' } });
});

test('logins per address are limited, and control characters in the hostname are removed', async () => {
  const login = await start('good\u202e\u0000host\n');
  const user = await server.addUser('hal');
  const shown = await server.request(user, 'GET', `/api/v1/auth/cli/${login.userCode}`);
  expect(shown.body.hostname).toBe('goodhost');
  let last: any;
  for (let n = 0; n < 101; n++) last = await start();
  expect(last.code).toBe('sign-in-throttled');
});
