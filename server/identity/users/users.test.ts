import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { eq } from 'drizzle-orm';
import { v7 } from 'uuid';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { apiTokens, audit, users } from '../../database/schema.ts';
import { makeTestServer, type TestServer, type TestUser } from '../../testing.ts';
import { maxTokens } from '../sessions/tokens.ts';
import { makeUsername, usernameCandidates } from './usernames.ts';
import { ensureOwner } from './users.ts';

let server: TestServer;
let owner: TestUser;
beforeAll(async () => {
  server = await makeTestServer();
  owner = await server.addUser('root-owner', 'owner');
});
afterAll(() => server.close());

const create = (body: unknown, headers?: Record<string, string>) =>
  server.request(owner, 'POST', '/api/v1/users', body, headers);

test('an owner creates, finds, updates and deletes a user, each with an audit row', async () => {
  const made = await create({ username: 'nina', email: 'Nina@Example.com', password: 'a long password' });
  expect(made).toMatchObject({
    status: 201,
    body: { username: 'nina', email: 'nina@example.com', role: 'member' },
  });
  const byId = await server.request(owner, 'GET', `/api/v1/users/${made.body.id}`);
  expect(byId.body).toEqual(made.body);
  const changed = await server.request(owner, 'PATCH', '/api/v1/users/nina', {
    role: 'auditor',
    name: 'Nina',
  });
  expect(changed.body).toMatchObject({ role: 'auditor', name: 'Nina' });
  await server.request(owner, 'PATCH', '/api/v1/users/nina', { role: 'auditor' });
  expect((await server.request(owner, 'DELETE', '/api/v1/users/nina')).status).toBe(204);
  expect((await server.request(owner, 'GET', '/api/v1/users/nina')).body.code).toBe('user-not-found');

  const rows = await server.request(owner, 'GET', `/api/v1/audit?target=nina`);
  expect(rows.body.items).toMatchObject([
    { action: 'user.delete', actor: 'root-owner', before: { username: 'nina', role: 'auditor' } },
    { action: 'user.update', before: { role: 'member', name: '' }, after: { role: 'auditor', name: 'Nina' } },
    { action: 'user.create', after: { username: 'nina', password: true }, requestId: expect.any(String) },
  ]);
  expect(JSON.stringify(rows.body)).not.toContain('a long password');
  expect(JSON.stringify(rows.body)).not.toContain('argon2');
});

test('names and addresses that are taken, reserved or invalid are rejected', async () => {
  await create({ username: 'kim', email: 'kim@example.com' });
  expect((await create({ username: 'kim' })).body.code).toBe('username-taken');
  expect((await create({ username: 'kim-2', email: 'KIM@example.com' })).body.code).toBe('email-taken');
  for (const username of ['me', 'system', 'Kim', 'k--m', '-k', 'x'.repeat(33), ''])
    expect((await create({ username })).body.code, username).toBe('bad-request');
  await create({ username: 'lee', email: 'lee@example.com' });
  const clash = await server.request(owner, 'PATCH', '/api/v1/users/lee', { email: 'kim@example.com' });
  expect(clash).toMatchObject({ status: 409, body: { code: 'email-taken' } });
});

test('the list searches, paginates, and shows members only themselves', async () => {
  for (let n = 0; n < 7; n++) await create({ username: `pager-${n}`, name: n === 3 ? '100%_sure' : '' });
  const seen: string[] = [];
  let after = '';
  do {
    const reply = await server.request(owner, 'GET', `/api/v1/users?search=pager&limit=3${after}`);
    seen.push(...reply.body.items.map((user: any) => user.username));
    after = reply.body.next ? `&after=${reply.body.next}` : '';
  } while (after);
  expect(seen).toEqual([0, 1, 2, 3, 4, 5, 6].map((n) => `pager-${n}`));
  const special = await server.request(owner, 'GET', `/api/v1/users?search=${encodeURIComponent('0%_s')}`);
  expect(special.body.items).toMatchObject([{ username: 'pager-3' }]);
  expect((await server.request(owner, 'GET', '/api/v1/users?after=!!')).body.code).toBe('bad-request');
  const member = await server.addUser('mina');
  const own = await server.request(member, 'GET', '/api/v1/users');
  expect(own.body).toMatchObject({ items: [{ username: 'mina' }], next: null });
  const [other, nobody] = await Promise.all([
    server.request(member, 'GET', '/api/v1/users/kim'),
    server.request(member, 'GET', '/api/v1/users/no-such-user'),
  ]);
  expect({ ...other.body, requestId: '' }).toEqual({ ...nobody.body, requestId: '' });
});

test('the last active owner cannot be removed, even if two owners remove each other concurrently', async () => {
  const alone = await makeTestServer();
  try {
    const first = await alone.addUser('first', 'owner');
    for (const body of [{ role: 'member' }, { status: 'suspended' }])
      expect((await alone.request(first, 'PATCH', '/api/v1/users/me', body)).body.code).toBe('last-owner');
    expect((await alone.request(first, 'DELETE', '/api/v1/users/me')).body.code).toBe('last-owner');
    const second = await alone.addUser('second', 'owner');
    const replies = await Promise.all([
      alone.request(first, 'PATCH', '/api/v1/users/second', { role: 'member' }),
      alone.request(second, 'DELETE', '/api/v1/users/first'),
      alone.request(first, 'PATCH', '/api/v1/users/first', { status: 'suspended' }),
    ]);
    expect(replies.filter(({ status }) => status < 300).length).toBeLessThanOrEqual(1);
    const owners = await alone.database.db.select().from(users).where(eq(users.role, 'owner'));
    expect(owners.filter((row) => row.status === 'active')).toHaveLength(1);
  } finally {
    await alone.close();
  }
});

test('a user with workspaces or retained homes cannot be deleted', async () => {
  const user = await server.addUser('wanda');
  const insert = async (status: string, deletedAt: Date | null) => {
    await server.database.pool.query(
      `WITH t AS (INSERT INTO templates (id, name) VALUES (gen_random_uuid(), 't-' || gen_random_uuid()) RETURNING id),
        v AS (INSERT INTO template_versions (id, template_id, number, files, files_hash, content)
              SELECT gen_random_uuid(), id, 1, '{}', '', '{}' FROM t RETURNING id, template_id)
       INSERT INTO workspaces (id, owner_id, name, template_id, template_version_id, provider, desired, status, deleted_at)
       SELECT gen_random_uuid(), $1, 'w', template_id, id, 'local', 'deleted', $2, $3 FROM v`,
      [user.id, status, deletedAt],
    );
  };
  await insert('stopped', null);
  const remove = () => server.request(owner, 'DELETE', '/api/v1/users/wanda');
  expect((await remove()).body).toMatchObject({ code: 'user-has-workspaces', message: /has a workspace/ });
  await server.database.pool.query(`UPDATE workspaces SET status = 'deleted', deleted_at = $1`, [
    server.clock.at,
  ]);
  expect((await remove()).body).toMatchObject({ code: 'user-has-workspaces', message: /still kept/ });
  await server.database.pool.query(`UPDATE workspaces SET deleted_at = deleted_at - interval '7 days'`);
  expect((await remove()).status).toBe(204);
});

test('a repeated request with an idempotency key creates one user', async () => {
  const key = { 'idempotency-key': 'once' };
  const both = await Promise.all([create({ username: 'twin' }, key), create({ username: 'twin' }, key)]);
  // The second is rejected as in progress, or gets the first one's reply, but never `username-taken`.
  for (const reply of both)
    expect([201, 'idempotency-in-progress']).toContain(reply.status === 201 ? 201 : reply.body.code);
  const again = await create({ username: 'twin' }, key);
  expect(again).toMatchObject({ status: 201, body: { username: 'twin' } });
  expect(again.headers['idempotent-replayed']).toBe('true');
  const other = await create({ username: 'other-twin' }, key);
  expect(other).toMatchObject({ status: 422, body: { code: 'idempotency-key-reused' } });
  const someoneElse = await server.addUser('second-owner', 'owner');
  const theirs = await server.request(someoneElse, 'POST', '/api/v1/users', { username: 'third-twin' }, key);
  expect(theirs.status).toBe(201);
});

test('failed requests are not stored, and replies are deleted after a day', async () => {
  const key = { 'idempotency-key': 'failing' };
  await create({ username: 'hana' });
  expect((await create({ username: 'hana' }, key)).body.code).toBe('username-taken');
  await server.request(owner, 'DELETE', '/api/v1/users/hana');
  expect((await create({ username: 'hana' }, key)).status).toBe(201);
  const start = server.clock.at;
  server.clock.at = new Date(start.getTime() + 24 * 3600_000 + 1);
  try {
    expect((await create({ username: 'hana' }, key)).body.code).toBe('username-taken');
  } finally {
    server.clock.at = start;
  }
});

test('tokens are created, listed, marked as used and revoked, and never get more scopes than their creator', async () => {
  const user = await server.addUser('tess');
  const made = await server.request(user, 'POST', '/api/v1/tokens', {
    name: 'ci',
    scopes: ['read', 'read'],
    expiresInDays: 1,
  });
  expect(made.body).toMatchObject({
    token: /^cde_[\w-]{43}$/,
    info: { name: 'ci', scopes: ['read'], lastUsedAt: null },
  });
  const narrow = { ...user, token: made.body.token };
  const use = () => server.request(narrow, 'GET', '/api/v1/users/me');
  const lastUsed = async () => {
    const [row] = await server.database.db
      .select()
      .from(apiTokens)
      .where(eq(apiTokens.id, made.body.info.id));
    return row?.lastUsedAt?.getTime();
  };
  const start = server.clock.at;
  try {
    expect((await use()).status).toBe(200);
    expect(await lastUsed()).toBe(start.getTime());
    server.clock.at = new Date(start.getTime() + 59_000);
    const later = await use();
    expect(await lastUsed()).toBe(start.getTime());
    expect(later.body.lastSeenAt).toBe(start.toISOString());
    server.clock.at = new Date(start.getTime() + 61_000);
    await use();
    expect(await lastUsed()).toBe(start.getTime() + 61_000);
    const wider = await server.request(narrow, 'POST', '/api/v1/tokens', { name: 'wider' });
    expect(wider).toMatchObject({ status: 403, body: { code: 'scope-too-small' } });
    server.clock.at = new Date(start.getTime() + 24 * 3600_000);
    expect((await use()).body.code).toBe('token-expired');
  } finally {
    server.clock.at = start;
  }
  const list = await server.request(user, 'GET', '/api/v1/tokens');
  expect(list.body.items).toMatchObject([{ name: 'ci' }, { name: 'test' }]);
  expect(JSON.stringify(list.body)).not.toContain(made.body.token);
  const foreign = await server.request(owner, 'DELETE', `/api/v1/tokens/${made.body.info.id}`);
  expect(foreign).toMatchObject({ status: 404, body: { code: 'token-not-found' } });
  expect((await server.request(user, 'DELETE', `/api/v1/tokens/${made.body.info.id}`)).status).toBe(204);
  expect((await use()).body.code).toBe('token-invalid');
});

test('a user can have a limited number of unexpired tokens', async () => {
  const user = await server.addUser('hoarder');
  const expiresAt = (days: number) => new Date(server.clock.at.getTime() + days * 24 * 3600_000);
  const row = (days: number) => ({
    id: v7(),
    tokenHash: randomBytes(32),
    userId: user.id,
    name: 'many',
    scopes: ['all' as const],
    expiresAt: expiresAt(days),
  });
  // With the one that the user has already, one less than the limit; expired ones do not count.
  await server.database.db
    .insert(apiTokens)
    .values([...Array.from({ length: maxTokens - 2 }, () => row(1)), row(-1), row(-1)]);
  const create = () => server.request(user, 'POST', '/api/v1/tokens', { name: 'one more' });
  const statuses = (await Promise.all([create(), create()])).map(({ status }) => status);
  expect(statuses.sort()).toEqual([201, 409]);
  expect((await create()).body).toMatchObject({ code: 'token-limit-reached' });
  await server.database.db.delete(apiTokens).where(eq(apiTokens.name, 'many'));
  expect((await create()).status).toBe(201);
});

test('the sweep deletes audit entries after the configured days', async () => {
  const other = await makeTestServer({ CDE_AUDIT_DAYS: '30' });
  try {
    const auditor = await other.addUser('auditor', 'auditor');
    const add = (days: number, targetName: string) => {
      const at = new Date(other.clock.at.getTime() - days * 24 * 3600_000);
      const values = {
        actor: 'system',
        action: 'test.add',
        targetType: 'user',
        targetId: '1',
        requestId: 'test',
      };
      return other.database.db
        .insert(audit)
        .values({ ...values, id: v7({ msecs: at.getTime() }), at, targetName });
    };
    for (const [days, name] of [
      [31, 'old'],
      [400, 'older'],
      [29, 'recent'],
    ] as const)
      await add(days, name);
    await other.app.sweep();
    const { body } = await other.request(auditor, 'GET', '/api/v1/audit?action=test.add');
    expect(body.items.map((entry: { targetName: string }) => entry.targetName)).toEqual(['recent']);
  } finally {
    await other.close();
  }
});

test('signing out with a token revokes it, even a read-only one', async () => {
  const user = await server.addUser('rhea', 'member', ['read']);
  expect((await server.request(user, 'POST', '/api/v1/auth/sign-out', {})).status).toBe(204);
  expect((await server.request(user, 'GET', '/api/v1/users/me')).body.code).toBe('token-invalid');
  expect((await server.request(null, 'POST', '/api/v1/auth/sign-out', {})).status).toBe(204);
});

test('the audit log filters and paginates', async () => {
  const auditor = await server.addUser('argus', 'auditor');
  const alone = await server.addUser('busy', 'owner');
  for (let n = 0; n < 5; n++) await server.request(alone, 'POST', '/api/v1/users', { username: `made-${n}` });
  await server.request(alone, 'POST', '/api/v1/tokens', { name: 'extra' });
  const read = async (query: string) =>
    (await server.request(auditor, 'GET', `/api/v1/audit?actor=busy&${query}`)).body;
  const first = await read('action=user.create&limit=3');
  const second = await read(`action=user.create&limit=3&after=${first.next}`);
  expect([...first.items, ...second.items].map((row: any) => row.targetName)).toEqual(
    [4, 3, 2, 1, 0].map((n) => `made-${n}`),
  );
  expect(second.next).toBeNull();
  expect((await read('action=token.*')).items).toMatchObject([{ targetName: 'extra', targetType: 'token' }]);
  expect((await read('action=user*')).items).toHaveLength(5);
  expect((await read('until=2020-01-01T00:00:00Z')).items).toEqual([]);
  expect((await read('since=2020-01-01T00:00:00Z')).items).toHaveLength(6);
  expect((await read(`target=${first.items[0].targetId}`)).items).toHaveLength(1);
  expect((await read('after=bm9uc2Vuc2U')).code).toBe('bad-request');
});

test('concurrent replicas create the first owner once, with a valid name', async () => {
  const alone = await makeTestServer();
  try {
    const make = () => ensureOwner(alone.database, { username: 'Dr. Ada_L', now: () => alone.clock.at });
    const both = await Promise.all([make(), make(), make()]);
    expect(both.filter(({ created }) => created)).toHaveLength(1);
    expect(both.map(({ user }) => user.username)).toEqual(['dr-ada-l', 'dr-ada-l', 'dr-ada-l']);
    const [row] = await alone.database.db.select().from(audit);
    expect(row).toMatchObject({ actor: 'system', action: 'user.create', requestId: 'first-start' });
  } finally {
    await alone.close();
  }
});

test.each([
  ['root', 'it names a system user or group of common Linux images'],
  ['www-data', 'it names a system user or group of common Linux images'],
  ['systemd-network', 'it names a system user or group of common Linux images'],
  ['localhost', 'it is reserved for host names'],
  ['kube-system', 'it is reserved for host names'],
  ['me', 'cde uses it itself'],
])('%s is nobody’s username, with the reason', async (username, reason) => {
  expect(await server.request(owner, 'POST', '/api/v1/users', { username })).toMatchObject({
    status: 400,
    body: { code: 'bad-request', message: `The username ${username} is reserved: ${reason}.` },
  });
  // Nor is one derived from a sign-in provider's claims.
  expect(makeUsername(`${username}@example.com`)).toBeNull();
});

test('system users and groups of this machine cannot be usernames', () => {
  // System ids are below 1000; 65534 is nobody.
  const names = ['/etc/passwd', '/etc/group'].flatMap((file) =>
    readFileSync(file, 'utf8')
      .split('\n')
      .map((line) => line.split(':'))
      .filter(
        ([name, , id]) => /^[a-z][a-z0-9-]*$/.test(name ?? '') && (Number(id) < 100 || name === 'nobody'),
      )
      .map(([name]) => name!),
  );
  expect(names.filter((name) => makeUsername(name) !== null)).toEqual([]);
});

test('usernames are derived from login names, addresses and names', () => {
  expect(makeUsername('Zoë.Müller@example.com')).toBe('zoe-muller');
  expect(makeUsername('EXAMPLE\\ada')).toBe('example-ada');
  expect(makeUsername('123')).toBeNull();
  expect(makeUsername('me')).toBeNull();
  expect(makeUsername('李')).toBeNull();
  const names = usernameCandidates(`${'a'.repeat(30)}-b`);
  expect([names.next().value, names.next().value]).toEqual([`${'a'.repeat(30)}-b`, `${'a'.repeat(30)}-2`]);
});
