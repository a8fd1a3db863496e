import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { makeTestServer, type TestServer, type TestUser } from '../testing.ts';
import { addWorkspace, type Batch, leg, postBatch, slept, v1, windowsAgo } from './testing.ts';

let server: TestServer;
let admin: TestUser;
let auditor: TestUser;
let ada: TestUser;
let bob: TestUser;
let web: string;
let bobs: string;

beforeAll(async () => {
  server = await makeTestServer();
  admin = await server.addUser('adm', 'owner');
  auditor = await server.addUser('aud', 'auditor');
  ada = await server.addUser('ada');
  bob = await server.addUser('bob');
  await server.request(admin, 'POST', `${v1}/templates`, {
    files: { 'template.yaml': 'name: plain\nprovider: local\n' },
  });
  ({ id: web } = await addWorkspace(server, ada, 'web'));
  ({ id: bobs } = await addWorkspace(server, bob, 'bobs'));
});
afterAll(() => server.close());

const pass = (ms: number) => {
  server.clock.at = new Date(server.clock.at.getTime() + ms);
};
/** Each test has a time of its own, in the middle of a UTC hour. */
beforeEach(() => {
  const day = 86_400_000;
  server.clock.at = new Date((Math.floor(server.clock.at.getTime() / day) + 3) * day + 10.5 * 3_600_000);
});

const post = (user: TestUser, batch: Batch) => postBatch(server, user, user === ada ? web : bobs, batch);
const get = async (user: TestUser, path: string) => (await server.request(user, 'GET', `${v1}${path}`)).body;
const since = (ms: number) => new Date(server.clock.at.getTime() - ms).toISOString();
/** Audit entries have the time of the database. */
const auditOf = async (action: string, target: string) =>
  (await get(admin, `/audit?action=${action}&target=${target}`)).items as {
    actor: string;
    targetName: string;
  }[];

test('people see their own sessions, owners and auditors those of everybody', async () => {
  const [hers, his] = [randomUUID(), randomUUID()];
  await post(ada, { id: hers, windows: windowsAgo(60_000), events: slept });
  await post(bob, { id: his, windows: windowsAgo(60_000) });
  const list = async (user: TestUser, more = '') =>
    (await get(user, `/sessions?since=${since(60_000)}${more}`)).items as { id: string }[];
  expect(await list(ada)).toMatchObject([
    {
      ...{ id: hers, user: 'ada', workspace: 'ada/web', isActive: true, endedAt: null, incidents: 1 },
      path: { kind: 'relay', via: 'tokyo.example.com' },
      client: { version: '1.2.3', platform: 'linux' },
    },
  ]);
  expect(await list(ada, '&user=bob')).toEqual([]);
  expect((await list(auditor)).map(({ id }) => id).sort()).toEqual([hers, his].sort());
  expect(await list(admin, '&user=bob')).toMatchObject([{ id: his }]);
  expect(await list(admin, '&workspace=ada~web')).toMatchObject([{ id: hers }]);
  expect(await list(admin, '&path=direct-udp')).toEqual([]);
  expect(await list(admin, '&clientVersion=9')).toEqual([]);
  expect((await server.request(bob, 'GET', `${v1}/sessions/${hers}/windows`)).body.code).toBe(
    'session-not-found',
  );
  expect((await server.request(bob, 'GET', `${v1}/incidents?session=${hers}`)).body.code).toBe(
    'session-not-found',
  );
});

test('who looks at the sessions of others leaves one audit entry an hour, who looks at their own none', async () => {
  const id = randomUUID();
  await post(ada, { id, windows: windowsAgo(60_000), events: slept });
  for (let time = 0; time < 3; time++) {
    await get(ada, `/sessions/${id}/windows`);
    await get(ada, '/sessions');
    expect(await get(auditor, `/sessions/${id}/windows`)).toMatchObject({ session: { user: 'ada' } });
    expect((await get(auditor, `/incidents?session=${id}`)).items).toHaveLength(1);
    await Promise.all([1, 2, 3].map(() => get(auditor, `/sessions/${id}/windows`)));
    await get(auditor, '/sessions?user=ada');
  }
  expect(await auditOf('session.view', id)).toMatchObject([{ actor: 'aud', targetName: 'ada/web' }]);
  expect(await auditOf('session.list', 'ada')).toMatchObject([{ actor: 'aud', targetName: 'ada' }]);
  pass(3_601_000);
  await get(auditor, `/sessions/${id}/windows`);
  expect(await auditOf('session.view', id)).toHaveLength(2);
});

test('a session ends when its client says so, or is past when it is silent', async () => {
  const [ended, silent] = [randomUUID(), randomUUID()];
  await post(ada, { id: ended, windows: windowsAgo(20_000) });
  await post(ada, { id: silent, windows: windowsAgo(20_000) });
  pass(10_000);
  await post(ada, { id: ended, batch: 2, events: [{ kind: 'ended', agoMs: 2_000, reason: null }] });
  const ids = async (state: string) =>
    ((await get(ada, `/sessions?state=${state}&since=${since(600_000)}`)).items as { id: string }[]).map(
      ({ id }) => id,
    );
  expect(await ids('active')).toEqual([silent]);
  expect(await ids('past')).toEqual([ended]);
  expect((await get(ada, `/sessions/${ended}/windows`)).session).toMatchObject({
    isActive: false,
    endedAt: since(2_000),
  });
  pass(120_000);
  expect(await ids('active')).toEqual([]);
  expect((await ids('past')).sort()).toEqual([ended, silent].sort());
});

test('the list of sessions has pages', async () => {
  const ids = [];
  for (let count = 0; count < 3; count++) {
    pass(1_000);
    ids.unshift(randomUUID());
    await post(bob, { id: ids[0]!, startedAgoMs: 0, windows: windowsAgo(10_000) });
  }
  const first = await get(bob, '/sessions?limit=2');
  const second = await get(bob, `/sessions?limit=2&after=${first.next}`);
  expect([...first.items, ...second.items].slice(0, 3).map(({ id }) => id)).toEqual(ids);
  expect((await server.request(bob, 'GET', `${v1}/sessions?after=nonsense`)).status).toBe(400);
});

test('windows are read at each resolution, before and after they are rolled up', async () => {
  const id = randomUUID();
  // From 09:30 to 10:30, by ten seconds.
  for (let batch = 1; batch <= 4; batch++) {
    const until = (4 - batch) * 900_000;
    const late = batch === 4 ? { toAgent: leg(300) } : {};
    await post(ada, {
      id,
      batch,
      startedAgoMs: 3_600_000,
      windows: windowsAgo(until + 900_000, until, late),
    });
  }
  const read = async (resolution: string, more = '') => {
    const {
      items,
      next,
      resolution: used,
    } = await get(ada, `/sessions/${id}/windows?resolution=${resolution}&from=${since(3_600_000)}${more}`);
    return {
      resolution: used as string,
      items: items as { at: string; ms: number; slowMs: number; bytes: number }[],
      next,
    };
  };
  const check = async () => {
    const [fine, minutes, hours] = [await read('10s'), await read('1m'), await read('1h')];
    expect([fine.items.length, minutes.items.length, hours.items.length]).toEqual([360, 60, 2]);
    for (const { items } of [fine, minutes, hours]) {
      expect(items.reduce((sum, { ms }) => sum + ms, 0)).toBe(3_600_000);
      expect(items.reduce((sum, { slowMs }) => sum + slowMs, 0)).toBe(900_000);
      expect(items.reduce((sum, { bytes }) => sum + bytes, 0)).toBe(360_000);
    }
    expect(hours.items.map(({ at }) => at.slice(11, 16))).toEqual(['09:00', '10:00']);
    expect(await read('auto')).toEqual(fine);
  };
  await check();
  pass(301_000);
  await server.app.diagnosis.explainDue();
  server.clock.at = new Date(server.clock.at.getTime() - 301_000);
  await check();

  const first = await read('1m', '&limit=25');
  const second = await read('1m', `&limit=25&after=${first.next}`);
  const third = await read('1m', `&limit=25&after=${second.next}`);
  expect(third).toMatchObject({ next: null });
  expect([...first.items, ...second.items, ...third.items]).toEqual((await read('1m')).items);
  expect((await get(ada, `/sessions/${id}/windows?from=${since(30 * 86_400_000)}`)).resolution).toBe('1h');
});

test('the overview has groups, causes, the worst and the hours of the day', async () => {
  const [hers, his] = [randomUUID(), randomUUID()];
  const direct = { path: { kind: 'direct-udp', via: '203.0.113.9:41022' }, toSatellite: null } as const;
  await post(ada, { id: hers, windows: windowsAgo(600_000, 0, { toAgent: leg(300) }), events: slept });
  await post(bob, {
    id: his,
    startedAgoMs: 1_200_000,
    windows: windowsAgo(1_200_000, 0, { ...direct, satelliteToAgent: null }),
  });
  pass(301_000);
  await server.app.diagnosis.explainDue();
  const range = `from=${since(3_600_000)}`;

  const all = await get(admin, `/network?by=user&${range}`);
  expect(all).toMatchObject({
    ...{ ofEverybody: true, resolution: '1m', total: { sessions: 2, ms: 1_800_000, slowMs: 600_000 } },
    groups: [
      {
        ...{ key: 'ada', sessions: 1, ms: 600_000, slowMs: 600_000, incidents: 1 },
        toAgent: { p50: 300, p95: 360, max: 450 },
        toSatellite: { p50: 10 },
      },
      {
        key: 'bob',
        slowMs: 0,
        incidents: 0,
        toAgent: { p50: 24 },
        toSatellite: null,
        satelliteToAgent: null,
      },
    ],
    worst: [{ session: { id: hers }, slowMs: 600_000, incidents: 1, p95: 360 }],
    causes: [
      { cause: 'client-slept', segment: 'client', incidents: 1, sessions: 1, users: 1, kinds: { drop: 1 } },
    ],
  });
  const keys = async (by: string) =>
    ((await get(admin, `/network?by=${by}&${range}`)).groups as { key: string }[]).map(({ key }) => key);
  expect(await keys('workspace')).toEqual(['ada/web', 'bob/bobs']);
  expect(await keys('path')).toEqual(['relay', 'direct-udp']);
  expect(await keys('region')).toEqual(['unknown', 'direct']);
  expect(await keys('client-version')).toEqual(['1.2.3']);
  expect(await keys('hour')).toEqual(['10']);
  expect(await keys('hour&timeZone=Asia/Tokyo')).toEqual(['19']);
  expect(all.byHour).toEqual([
    { region: 'direct', hour: 10, ms: 1_200_000, slowMs: 0 },
    { region: 'unknown', hour: 10, ms: 600_000, slowMs: 600_000 },
  ]);
  expect(all.overTime).toHaveLength(2);
  expect(all.causesOverTime).toMatchObject([{ cause: 'client-slept', incidents: 1 }]);
  // By hours instead of minutes, the sums are the same.
  const week = await get(admin, `/network?by=user&from=${since(7 * 86_400_000)}`);
  expect(week.resolution).toBe('1h');
  expect(week.groups.find(({ key }: { key: string }) => key === 'ada').slowMs).toBeGreaterThanOrEqual(
    600_000,
  );

  const own = await get(bob, `/network?by=user&${range}`);
  expect(own).toMatchObject({ ofEverybody: false, groups: [{ key: 'bob' }], worst: [], causes: [] });
  for (const wrong of ['timeZone=Nowhere', `from=${since(0)}&to=${since(10)}`, 'from=2001-01-01T00:00:00Z'])
    expect((await server.request(ada, 'GET', `${v1}/network?${wrong}`)).status).toBe(400);
});

test.each([
  ['network', '203.0.113.0/24'],
  ['none', ''],
] as const)('with addresses set to %s, recordings keep no more', async (policy, kept) => {
  const own = await makeTestServer({ CDE_RECORDING_ADDRESSES: policy });
  try {
    const owner = await own.addUser('own', 'owner');
    await own.request(owner, 'POST', `${v1}/templates`, {
      files: { 'template.yaml': 'name: plain\nprovider: local\n' },
    });
    const { id: workspace } = await addWorkspace(own, owner, 'web');
    const id = randomUUID();
    const path = { kind: 'direct-tcp', via: '203.0.113.9:22' } as const;
    await postBatch(own, owner, workspace, {
      ...{ id, windows: windowsAgo(20_000, 0, { path }) },
      events: [{ kind: 'opened', agoMs: 20_000, path }],
    });
    const { body } = await own.request(owner, 'GET', `${v1}/sessions/${id}/windows`);
    expect(body.session.path).toEqual({ kind: 'direct-tcp', via: kept });
    expect(body.items[0].path).toEqual({ kind: 'direct-tcp', via: kept });
    const { rows } = await own.database.pool.query(
      "SELECT event FROM session_events WHERE event::text LIKE '%113.9%'",
    );
    expect(rows).toEqual([]);
  } finally {
    await own.close();
  }
});
