import { eq } from 'drizzle-orm';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { browserSessions, oneTimeLinks, signInFailures, users } from '../database/schema.ts';
import { makeTestServer, type TestServer } from '../testing.ts';
import { hashPassword, verifyPassword } from './passwords.ts';
import { makeOneTimeLink } from './sessions.ts';
import { sweepIdentity } from './sweep.ts';
import { limits, network, windowMs } from './throttle.ts';

const password = 'correct horse battery';
let server: TestServer;
beforeAll(async () => {
  server = await makeTestServer();
});
afterAll(() => server.close());

async function addUserWithPassword(username: string, role: 'owner' | 'member' = 'member') {
  const user = await server.addUser(username, role);
  await server.database.db
    .update(users)
    .set({ passwordHash: await hashPassword(password) })
    .where(eq(users.id, user.id));
  return user;
}

/** A sign-in attempt from an address of the test's choice. */
async function attempt(username: string, given: string, ip = '127.0.0.1') {
  const reply = await server.app.inject({
    method: 'POST',
    url: '/api/v1/auth/sign-in',
    remoteAddress: ip,
    payload: { username, password: given },
  });
  return {
    status: reply.statusCode,
    body: reply.json(),
    retryAfter: Number(reply.headers['retry-after']),
    setCookie: String(reply.headers['set-cookie'] ?? ''),
  };
}
const cookieOf = (setCookie: string) => setCookie.split(';')[0]!;
/** What the dashboard sends after a sign-in. */
const asBrowser = ({ setCookie, body }: { setCookie: string; body: any }) => ({
  cookie: cookieOf(setCookie),
  'x-cde-session-key': body.sessionKey,
  origin: server.config.accessUrl,
});

test('a password is kept as argon2id, and comparing without a user is the same work', async () => {
  const stored = await hashPassword(password);
  expect(stored).toMatch(/^\$argon2id\$v=19\$m=19456,t=2,p=1\$/);
  expect(await verifyPassword(stored, password)).toBe(true);
  expect(await verifyPassword(stored, 'something else')).toBe(false);
  expect(await verifyPassword(null, 'nobody has this password')).toBe(false);
  const fastest = async (of: string | null) => {
    let best = Number.POSITIVE_INFINITY;
    for (let n = 0; n < 5; n++) {
      const start = performance.now();
      await verifyPassword(of, 'something else');
      best = Math.min(best, performance.now() - start);
    }
    return best;
  };
  // Without the work it would be a thousandth.
  expect(await fastest(null)).toBeGreaterThan((await fastest(stored)) / 4);
});

test('signing in sets a cookie that is the user, and signing out ends it', async () => {
  await addUserWithPassword('ada');
  const made = await attempt('Ada ', password);
  expect(made).toMatchObject({ status: 200, body: { username: 'ada' } });
  expect(made.setCookie).toMatch(
    /^cde_session=cde_session_[\w-]{43}; Path=\/; Expires=.*; HttpOnly; SameSite=Lax$/,
  );
  const headers = asBrowser(made);
  const me = await server.request(null, 'GET', '/api/v1/users/me', undefined, headers);
  expect(me).toMatchObject({ status: 200, body: { username: 'ada', lastSeenAt: expect.any(String) } });
  const rows = await server.database.db.select().from(browserSessions);
  for (const secret of [cookieOf(made.setCookie).split('=')[1], made.body.sessionKey])
    expect(JSON.stringify(rows)).not.toContain(secret);

  const out = await server.request(null, 'POST', '/api/v1/auth/sign-out', {}, headers);
  expect(out.status).toBe(204);
  expect(String(out.headers['set-cookie'])).toMatch(/^cde_session=; Max-Age=0; Path=\/; /);
  expect((await server.request(null, 'GET', '/api/v1/users/me', undefined, headers)).status).toBe(401);
});

test('an email address serves as the username', async () => {
  await addUserWithPassword('grace');
  expect(await attempt('Grace@Example.com', password)).toMatchObject({ body: { username: 'grace' } });
});

test('a session ends after sessionDays, and the sweep deletes it', async () => {
  await addUserWithPassword('edith');
  const made = await attempt('edith', password);
  const headers = asBrowser(made);
  const start = server.clock.at;
  server.clock.at = new Date(start.getTime() + 14 * 24 * 3600_000 + 1);
  try {
    expect((await server.request(null, 'GET', '/api/v1/users/me', undefined, headers)).status).toBe(401);
    await sweepIdentity(server.database, () => server.clock.at);
    expect(await server.database.db.$count(browserSessions)).toBe(0);
  } finally {
    server.clock.at = start;
  }
});

test('a wrong password and an unknown user are the same answer', async () => {
  await addUserWithPassword('joan');
  const wrong = await attempt('joan', 'not the password', '10.0.0.1');
  const unknown = await attempt('nobody-here', 'not the password', '10.0.0.1');
  expect(wrong).toMatchObject({ status: 401, body: { code: 'sign-in-failed' } });
  expect({ ...unknown.body, requestId: '' }).toEqual({ ...wrong.body, requestId: '' });
});

test('ten failures from one address close that account to it, until the window has passed', async () => {
  await addUserWithPassword('mallory');
  const start = server.clock.at;
  for (let n = 0; n < limits.usernameAtAddress; n++)
    expect((await attempt('mallory', 'wrong', '10.0.1.1')).status).toBe(401);
  const refused = await attempt('mallory', password, '10.0.1.1');
  expect(refused).toMatchObject({ status: 429, body: { code: 'sign-in-throttled' } });
  expect(refused.retryAfter).toBe(windowMs / 1000);
  expect((await attempt('mallory', password, '10.0.1.2')).status).toBe(200);
  server.clock.at = new Date(start.getTime() + windowMs - 1000);
  try {
    // Refused attempts do not count, so that the wait does not grow.
    expect((await attempt('mallory', password, '10.0.1.1')).retryAfter).toBe(1);
    server.clock.at = new Date(start.getTime() + windowMs);
    expect((await attempt('mallory', password, '10.0.1.1')).status).toBe(200);
  } finally {
    server.clock.at = start;
  }
});

test('guesses at the same moment do not slip past the limit', async () => {
  await addUserWithPassword('peggy');
  const replies = await Promise.all(
    Array.from({ length: 40 }, () => attempt('peggy', 'wrong guess', '10.0.2.1')),
  );
  const judged = replies.filter((reply) => reply.status === 401).length;
  expect(judged).toBeLessThanOrEqual(limits.usernameAtAddress);
  expect(replies.filter((reply) => reply.status === 429).length).toBe(40 - judged);
});

test('an attack from everywhere shuts nobody out of an address of theirs, nor a one-time link', async () => {
  const owner = await addUserWithPassword('olivia', 'owner');
  expect((await attempt('olivia', password, '192.0.2.7')).status).toBe(200);
  for (let n = 0; n < limits.username; n++) await attempt('olivia', 'wrong', `10.1.${n}.1`);
  expect((await attempt('olivia', password, '10.2.0.1')).status).toBe(429);
  expect((await attempt('olivia', password, '192.0.2.7')).status).toBe(200);
  const link = await makeOneTimeLink(server.database, owner.id, () => server.clock.at);
  const once = await server.request(null, 'POST', '/api/v1/auth/one-time', { code: link.code });
  expect(once).toMatchObject({ status: 200, body: { username: 'olivia' } });
});

test('one address cannot try a password on everybody', async () => {
  await server.database.db.insert(signInFailures).values(
    Array.from({ length: limits.address }, () => ({
      id: crypto.randomUUID(),
      subject: `address:${network('2001:db8:1:2:3::4')}`,
      at: server.clock.at,
    })),
  );
  expect((await attempt('somebody', 'wrong', '2001:db8:1:2:ffff::1')).status).toBe(429);
  expect((await attempt('somebody', 'wrong', '2001:db8:1:3::1')).status).toBe(401);
  expect(network('::ffff:10.0.0.1')).toBe('10.0.0.1');
});

test('a one-time link signs in once, within ten minutes, even when two use it at the same moment', async () => {
  const user = await server.addUser('rosa');
  const reply = await server.request(user, 'POST', '/api/v1/auth/one-time-links', {});
  expect(reply.body.url).toMatch(/^http:\/\/127\.0\.0\.1:7080\/sign-in#code=cde_link_[\w-]{43}$/);
  const code = reply.body.url.split('code=')[1];
  const use = () => server.request(null, 'POST', '/api/v1/auth/one-time', { code });
  const both = await Promise.all([use(), use()]);
  expect(both.map(({ status }) => status).sort()).toEqual([200, 401]);
  expect(await use()).toMatchObject({ status: 401, body: { code: 'link-invalid' } });

  const late = await server.request(user, 'POST', '/api/v1/auth/one-time-links', {});
  const start = server.clock.at;
  server.clock.at = new Date(start.getTime() + 10 * 60_000);
  try {
    const refused = await server.request(null, 'POST', '/api/v1/auth/one-time', {
      code: late.body.url.split('code=')[1],
    });
    expect(refused.body.code).toBe('link-invalid');
    await sweepIdentity(server.database, () => server.clock.at);
    expect(await server.database.db.$count(oneTimeLinks)).toBe(0);
  } finally {
    server.clock.at = start;
  }
});

test('changing ones password wants the current one, ends all sessions, and keeps this browser signed in', async () => {
  const user = await addUserWithPassword('ruth');
  const here = asBrowser(await attempt('ruth', password));
  const there = asBrowser(await attempt('ruth', password));
  const put = (body: unknown) => server.request(null, 'PUT', '/api/v1/users/me/password', body, here);
  expect((await put({ password: 'another password' })).body.code).toBe('password-wrong');
  expect((await put({ current: 'not it', password: 'another password' })).body.code).toBe('password-wrong');
  expect((await put({ current: password, password: 'short' })).body.code).toBe('bad-request');
  const done = await put({ current: password, password: 'another password' });
  expect(done.status).toBe(200);
  const me = (headers: Record<string, string>) =>
    server.request(null, 'GET', '/api/v1/users/me', undefined, headers);
  expect((await me(there)).status).toBe(401);
  expect((await me(here)).status).toBe(401);
  expect(
    (await me(asBrowser({ setCookie: String(done.headers['set-cookie']), body: done.body }))).status,
  ).toBe(200);
  expect((await attempt('ruth', password)).status).toBe(401);
  expect((await attempt('ruth', 'another password')).status).toBe(200);
  expect((await server.request(user, 'GET', '/api/v1/users/me')).status).toBe(200);
});

test('who has no password sets one; an owner sets that of others', async () => {
  const user = await server.addUser('dora');
  expect((await server.request(user, 'PUT', '/api/v1/users/me/password', { password })).status).toBe(200);
  expect((await attempt('dora', password)).status).toBe(200);
  const owner = await server.addUser('oscar', 'owner');
  const other = await server.addUser('paul');
  const body = { password: 'given by an owner' };
  expect((await server.request(other, 'PUT', '/api/v1/users/dora/password', body)).status).toBe(403);
  expect((await server.request(owner, 'PUT', '/api/v1/users/dora/password', body)).status).toBe(200);
  expect((await attempt('dora', 'given by an owner')).status).toBe(200);
});

test('suspension refuses tokens, sessions and sign-in at once', async () => {
  const owner = await server.addUser('otto', 'owner');
  const user = await addUserWithPassword('sam');
  const headers = asBrowser(await attempt('sam', password));
  await server.request(owner, 'PATCH', '/api/v1/users/sam', { status: 'suspended' });
  expect(await server.request(user, 'GET', '/api/v1/users/me')).toMatchObject({
    status: 403,
    body: { code: 'user-suspended' },
  });
  expect((await server.request(null, 'GET', '/api/v1/users/me', undefined, headers)).status).toBe(401);
  expect((await attempt('sam', password)).body.code).toBe('user-suspended');
  expect((await attempt('sam', 'wrong guess')).body.code).toBe('sign-in-failed');
  await server.request(owner, 'PATCH', '/api/v1/users/sam', { status: 'active' });
  expect((await server.request(user, 'GET', '/api/v1/users/me')).status).toBe(200);
  expect((await server.request(null, 'GET', '/api/v1/users/me', undefined, headers)).status).toBe(401);
});

test('behind https the cookie is Secure; with passwords off none is taken', async () => {
  const other = await makeTestServer({
    CDE_ACCESS_URL: 'https://cde.example.com',
    CDE_PASSWORD_LOGIN: 'off',
    CDE_OIDC_ISSUER: 'https://issuer.example.com',
    CDE_OIDC_CLIENT_ID: 'cde',
  });
  try {
    const user = await other.addUser('una');
    const link = await makeOneTimeLink(other.database, user.id, () => other.clock.at);
    const once = await other.request(null, 'POST', '/api/v1/auth/one-time', { code: link.code });
    expect(String(once.headers['set-cookie'])).toMatch(
      /^__Host-cde_session=cde_session_[\w-]{43}; Path=\/; Expires=.*; HttpOnly; Secure; SameSite=Lax$/,
    );
    expect(once.headers['strict-transport-security']).toBe('max-age=31536000');
    const refused = await other.request(null, 'POST', '/api/v1/auth/sign-in', { username: 'una', password });
    expect(refused).toMatchObject({ status: 401, body: { code: 'sign-in-failed' } });
    expect((await other.request(null, 'GET', '/api/v1/auth/methods')).body).toEqual({
      password: false,
      oidc: { name: 'single sign-on' },
      needsOwner: false,
    });
  } finally {
    await other.close();
  }
});
