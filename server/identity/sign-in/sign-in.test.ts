import { Problem } from '@cde/api/problem.ts';
import { eq } from 'drizzle-orm';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { cpuMs } from '../../../tests/kit/cpu-time.ts';
import { until } from '../../../tests/kit/until.ts';
import { browserSessions, oneTimeLinks, signInFailures, users } from '../../database/schema.ts';
import { makeTestServer, type TestServer } from '../../testing.ts';
import { makeOneTimeLink } from '../sessions/sessions.ts';
import { sweepIdentity } from '../sweep.ts';
import { windowMs } from './attempt-limit.ts';
import { hashPassword, verifyPassword } from './passwords.ts';
import { hashUsername, makeSignInThrottle, network, signInBuckets } from './sign-in-throttle.ts';

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

/** A sign-in attempt from a given address. */
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

test('passwords are stored as argon2id, and verifying without a user does the same work', async () => {
  const stored = await hashPassword(password);
  expect(stored).toMatch(/^\$argon2id\$v=19\$m=19456,t=2,p=1\$/);
  expect(await verifyPassword(stored, password)).toBe(true);
  expect(await verifyPassword(stored, 'something else')).toBe(false);
  expect(await verifyPassword(null, 'nobody has this password')).toBe(false);
  const least = { withoutUser: Number.POSITIVE_INFINITY, withUser: Number.POSITIVE_INFINITY };
  for (let n = 0; n < 5; n++) {
    const withoutUser = await cpuMs(() => verifyPassword(null, 'something else'));
    const withUser = await cpuMs(() => verifyPassword(stored, 'something else'));
    least.withoutUser = Math.min(least.withoutUser, withoutUser);
    least.withUser = Math.min(least.withUser, withUser);
  }
  // Without hashing it would take a thousandth of the time.
  expect(least.withoutUser).toBeGreaterThan(least.withUser / 50);
});

test('signing in sets a session cookie, and signing out ends the session', async () => {
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

test('an email address works as the username', async () => {
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

test('a wrong password and an unknown user get the same reply', async () => {
  await addUserWithPassword('joan');
  const wrong = await attempt('joan', 'not the password', '10.0.0.1');
  const unknown = await attempt('nobody-here', 'not the password', '10.0.0.1');
  expect(wrong).toMatchObject({ status: 401, body: { code: 'sign-in-failed' } });
  expect({ ...unknown.body, requestId: '' }).toEqual({ ...wrong.body, requestId: '' });
});

async function addFailures(subject: string, count: number): Promise<void> {
  const at = server.clock.at;
  const rows = Array.from({ length: count }, () => ({ id: crypto.randomUUID(), subject, at }));
  await server.database.db.insert(signInFailures).values(rows);
}

/** How far the injected clock advanced while `work` ran: its delay. */
async function waited(work: () => Promise<unknown>): Promise<number> {
  const start = server.clock.at.getTime();
  await work();
  return server.clock.at.getTime() - start;
}

test('failed attempts are delayed; the right password from the same address still works and clears the delay', async () => {
  await addUserWithPassword('mallory');
  const waits: number[] = [];
  for (let n = 0; n < 21; n++) waits.push(await waited(() => attempt('mallory', 'wrong')));
  expect([waits[0], waits[9], waits[10], waits[20]]).toEqual([0, 0, 1000, 2000]);
  await addFailures(`username:${hashUsername('mallory')} address:127.0.0.1`, 60);
  let reply = { status: 0 };
  expect(
    await waited(async () => {
      reply = await attempt('mallory', password);
    }),
  ).toBe(8000);
  expect(reply.status).toBe(200);
  expect(await waited(() => attempt('mallory', password))).toBeLessThanOrEqual(1000);
});

test('guessing does not reveal whether a user exists: same replies, same delays', async () => {
  await addUserWithPassword('erin');
  const course = async (name: string, ip: string) => {
    const seen: unknown[] = [];
    for (let n = 0; n < 35; n++) {
      const from = n < 20 ? ip : `${ip}${n % 10}`;
      let body: any;
      const ms = await waited(async () => {
        body = (await attempt(name, 'wrong', from)).body;
      });
      seen.push([ms, body.code, body.message, body.detail, body.hint]);
    }
    return seen;
  };
  const known = await course('erin', '10.0.7.1');
  expect(await course('nobody-of-this-name', '10.0.8.1')).toEqual(known);
  // Nor which address belongs to which name: buckets depend on the input, not on the user.
  expect(await waited(() => attempt('erin@example.com', 'wrong', '10.0.9.1'))).toBe(0);
});

test('failures at the same address do not delay other users', async () => {
  await addUserWithPassword('peter');
  for (const from of ['127.0.0.1', '10.0.5.1']) await addFailures(`address:${network(from)}`, 1200);
  expect(await waited(() => attempt('peter', password))).toBe(0);
  // Except on a non-loopback address, where password spraying is delayed.
  expect(await waited(() => attempt('peter', password, '10.0.5.1'))).toBe(2000);
});

test('a browser that has signed in before is delayed only by its own failures', async () => {
  const user = await addUserWithPassword('olivia', 'owner');
  const { device } = (await attempt('olivia', password)).body;
  await addFailures(`username:${hashUsername('olivia')}`, 100);
  const from = (given: string, devices: string[]) =>
    server.app.inject({
      method: 'POST',
      url: '/api/v1/auth/sign-in',
      payload: { username: 'olivia', password: given, devices },
    });
  expect(await waited(() => from(password, [device]))).toBe(0);
  const other = (await attempt('peter', password)).body.device;
  for (const devices of [[], [other], [`${device}x`], [device.replace(/\.[^.]+$/, '.')], ['', '..', 'x.y.z']])
    expect(await waited(() => from(password, devices)), String(devices)).toBeGreaterThan(0);
  for (let n = 0; n < 10; n++) expect(await waited(() => from('wrong', [device]))).toBe(0);
  expect(await waited(() => from('wrong', [device]))).toBe(1000);
  const link = await makeOneTimeLink(server.database, user.id, () => server.clock.at);
  const once = await server.request(null, 'POST', '/api/v1/auth/one-time', { code: link.code });
  expect(once).toMatchObject({ status: 200, body: { username: 'olivia' } });
});

test('concurrent attempts are queued, and rejected beyond a few', async () => {
  let go = () => {};
  const gate = new Promise<void>((resolve) => {
    go = resolve;
  });
  const waits: number[] = [];
  const pace = makeSignInThrottle({
    database: server.database,
    now: () => server.clock.at,
    sleep: (ms) => {
      waits.push(ms);
      return gate;
    },
  });
  const lanes = signInBuckets('peggy', '10.0.2.1', null);
  await addFailures(lanes.at(-2)!.subject, 15);
  let judged = 0;
  let refused = 0;
  const guesses = Array.from({ length: 30 }, () =>
    pace
      .throttle(lanes, ['sign-in-failed'], async () => {
        judged += 1;
        throw new Problem('sign-in-failed', 'wrong');
      })
      .catch((error: Problem) => {
        if (error.code === 'sign-in-throttled') refused += 1;
      }),
  );
  await until(
    () => refused,
    (count) => count === 22,
  );
  expect(judged).toBe(0);
  expect(new Set(waits).size).toBe(8);
  go();
  await Promise.all(guesses);
  expect(judged).toBe(8);
});

test('one IPv6 customer is one address', () => {
  expect(network('2001:db8:1:2:3::4')).toBe(network('2001:db8:1:2:ffff::1'));
  expect(network('2001:db8:1:2:3::4')).not.toBe(network('2001:db8:1:3::1'));
  expect(network('::ffff:10.0.0.1')).toBe('10.0.0.1');
});

test('failed sign-ins are in the audit log, and a flood of them makes only a few rows', async () => {
  const owner = await server.addUser('ophelia', 'owner');
  await addUserWithPassword('victor');
  const audit = async (query: string) =>
    (await server.request(owner, 'GET', `/api/v1/audit?limit=1000&${query}`)).body.items as any[];
  // End the windows of the failures in the tests above.
  server.clock.at = new Date(server.clock.at.getTime() + windowMs);
  await attempt('victor', 'wrong', '10.0.6.2');
  const before = (await audit('action=sign-in.*')).length;
  for (let n = 0; n < 5; n++) await attempt('victor', 'wrong', '10.0.6.1');
  await server.request(null, 'POST', '/api/v1/auth/one-time', { code: 'cde_link_x' });
  const [failed, ...more] = await audit('target=victor&action=sign-in.fail');
  expect(more.map(({ ip }) => ip)).toEqual(['10.0.6.2']);
  expect(failed).toMatchObject({
    actor: 'anonymous',
    targetName: 'victor',
    ip: '10.0.6.1',
    after: { how: 'password', attempts: 1 },
  });
  // The name may be a mistyped password.
  for (let n = 0; n < 70; n++) await attempt(`typed-${n}`, 'wrong', `10.2.${n}.1`);
  const rows = await audit('action=sign-in.*');
  expect(rows.length - before).toBeLessThan(60);
  expect(JSON.stringify(rows)).not.toContain('typed-');
  // The totals follow when the windows end.
  server.clock.at = new Date(server.clock.at.getTime() + windowMs);
  await attempt('victor', 'wrong', '10.0.6.3');
  expect(
    (await audit('target=victor&action=sign-in.fail')).map(({ ip, after }) => [ip, after.attempts]),
  ).toEqual(
    expect.arrayContaining([
      ['10.0.6.1', 5],
      ['10.0.6.3', 1],
    ]),
  );
  const others = await audit(`target=${encodeURIComponent('(others)')}`);
  expect(others[0].after.attempts).toBeGreaterThan(10);
});

test('a one-time link signs in once, within ten minutes, even if it is used concurrently', async () => {
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

test('changing a password requires the current one, ends all sessions, and keeps this browser signed in', async () => {
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

test('a user without a password sets one; an owner sets those of others', async () => {
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

test('suspension revokes tokens, sessions and sign-in at once', async () => {
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

test('with https the cookie is Secure; with password sign-in off none is accepted', async () => {
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
