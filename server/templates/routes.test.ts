// biome-ignore-all lint/suspicious/noTemplateCurlyInString: so are expressions written
// biome-ignore-all lint/suspicious/noExplicitAny: replies are looked at as a client sees them
import { readFile } from 'node:fs/promises';
import { v7 } from 'uuid';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { audit, templates, templateVersions, workspaces } from '../database/schema.ts';
import { makeTestServer, type TestServer, type TestUser } from '../testing.ts';

let server: TestServer;
let admin: TestUser;
let other: TestUser;
let member: TestUser;
beforeAll(async () => {
  server = await makeTestServer();
  admin = await server.addUser('ada', 'template-admin');
  other = await server.addUser('grace', 'owner');
  member = await server.addUser('bob');
});
afterAll(() => server.close());
beforeEach(async () => {
  await server.database.pool.query('TRUNCATE templates, audit, idempotency_keys CASCADE');
});

const folder = (name: string, more = '') => ({
  'template.yaml': `name: ${name}\nprovider: local\n${more}`,
});
const publish = (user: TestUser, files: Record<string, string>, more: object = {}, headers = {}) =>
  server.request(user, 'POST', '/api/v1/templates', { files, ...more }, headers);
const get = (url: string, user = member) => server.request(user, 'GET', `/api/v1/templates${url}`);

/** A workspace's row, as creating one leaves it. */
async function addWorkspace(owner: TestUser, name: string, template: string, status = 'stopped') {
  const { body } = await get(`/${template}`);
  await server.database.db.insert(workspaces).values({
    id: v7(),
    ownerId: owner.id,
    name,
    templateId: body.id,
    templateVersionId: body.activeVersion.id,
    provider: 'local',
    desired: status === 'deleted' ? 'deleted' : 'stopped',
    status: status as 'stopped',
  });
}
const actions = async () =>
  (await server.database.db.select().from(audit).orderBy(audit.id)).map((row) => [
    row.actor,
    row.action,
    row.targetName,
    row.before,
    row.after,
  ]);

test('the starter template is published, shown and listed', async () => {
  const starter = new URL('../../templates/local/', import.meta.url);
  const files = {
    'template.yaml': await readFile(new URL('template.yaml', starter), 'utf8'),
    'README.md': await readFile(new URL('README.md', starter), 'utf8'),
  };
  const published = await publish(admin, files, { message: 'first' });
  expect(published).toMatchObject({
    status: 201,
    body: {
      name: 'local',
      title: 'This machine',
      icon: '🏠',
      provider: 'local',
      workspaces: 0,
      activeVersion: { number: 1, message: 'first', active: true, createdBy: 'ada' },
    },
  });
  expect((await get('/local')).body).toEqual(published.body);
  expect((await get(`/${published.body.id}`)).body).toEqual(published.body);
  expect((await get('')).body).toEqual({ items: [published.body], next: null });
  expect((await get('/local/versions/1/files', admin)).body).toEqual({ files });
  expect(await actions()).toMatchObject([
    ['ada', 'template.publish', 'local', null, { version: 1, message: 'first', files: Object.keys(files) }],
    ['ada', 'template.activate', 'local', { activeVersion: null }, { activeVersion: 1 }],
  ]);
});

test('a folder with faults is refused with all of them, and validate reports the same', async () => {
  const files = folder('demo', 'titel: x\nenv:\n  A: ${{ foo }}\n');
  const faults = [
    {
      file: 'template.yaml',
      line: 3,
      column: 1,
      path: 'titel',
      message: 'the key "titel" is not known here',
      hint: 'did you mean "title"?',
    },
    expect.objectContaining({ line: 5, column: 10, path: 'env.A', message: 'there is no variable "foo"' }),
  ];
  expect(await publish(admin, files)).toMatchObject({
    status: 422,
    body: {
      code: 'template-invalid',
      message: 'The template has 2 faults.',
      issues: [
        {
          path: 'titel',
          message: 'the key "titel" is not known here (did you mean "title"?)',
          line: 3,
          column: 1,
        },
        { path: 'env.A', line: 5, column: 10 },
      ],
    },
  });
  expect((await get('')).body.items).toEqual([]);
  const validated = await server.request(admin, 'POST', '/api/v1/templates/validate', { files });
  expect(validated).toMatchObject({
    status: 200,
    body: { valid: false, faults, name: null, parameters: [] },
  });
});

test('a folder with manifests is published with them, and their faults name their file', async () => {
  const files = {
    'template.yaml': 'name: shop\nprovider: kubernetes\nkubernetes: {image: dev}\n',
    'manifests/db.yaml':
      'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: b}\n',
  };
  expect(await publish(admin, files)).toMatchObject({
    status: 422,
    body: { issues: [{ path: 'manifests/db.yaml: kind', line: 6, column: 7 }] },
  });
  const right = { ...files, 'manifests/db.yaml': files['manifests/db.yaml'].split('---')[0]! };
  expect(await server.request(admin, 'POST', '/api/v1/templates/validate', { files: right })).toMatchObject({
    body: { valid: true, faults: [], warnings: [{ file: 'template.yaml', path: 'kubernetes.image' }] },
  });
  expect(await publish(admin, right)).toMatchObject({ status: 201, body: { provider: 'kubernetes' } });
  const [version] = await server.database.db.select().from(templateVersions);
  expect(version!.content).toMatchObject({
    kubernetes: { image: 'dev', user: 1000, podSecurity: 'baseline' },
    manifests: [{ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'a' } }],
  });
});

test('validate answers with the parameters and publishes nothing', async () => {
  const files = folder('demo', 'parameters: [{name: repo, type: string}]');
  expect(await server.request(admin, 'POST', '/api/v1/templates/validate', { files })).toMatchObject({
    status: 200,
    body: { valid: true, faults: [], name: 'demo', parameters: [{ name: 'repo', immutable: false }] },
  });
  expect((await get('')).body.items).toEqual([]);
});

describe('versions', () => {
  test('count up, stay as they are, and one is active', async () => {
    await publish(admin, folder('demo', 'title: one'), { message: 'm1' });
    const second = await publish(other, folder('demo', 'title: two'), { message: 'm2' });
    expect(second.body).toMatchObject({ title: 'two', activeVersion: { number: 2, createdBy: 'grace' } });
    const third = await publish(admin, folder('demo', 'title: three'), { activate: false });
    expect(third.body).toMatchObject({ title: 'two', activeVersion: { number: 2 } });

    const { body } = await get('/demo/versions');
    expect(body.items.map((v: any) => [v.number, v.message, v.active])).toEqual([
      [3, '', false],
      [2, 'm2', true],
      [1, 'm1', false],
    ]);
    expect((await get('/demo/versions/1/files', admin)).body.files).toEqual(folder('demo', 'title: one'));
    const back = await server.request(admin, 'POST', '/api/v1/templates/demo/versions/1/activate', {});
    expect(back).toMatchObject({ status: 200, body: { title: 'one', activeVersion: { number: 1 } } });
    expect((await actions()).at(-1)).toEqual([
      'ada',
      'template.activate',
      'demo',
      { activeVersion: 2 },
      { activeVersion: 1 },
    ]);
  });

  test('the newest content again is the same version', async () => {
    const first = await publish(admin, { ...folder('demo'), 'b.txt': 'b', 'a.txt': 'a' }, { message: 'm' });
    const again = await publish(
      admin,
      { 'a.txt': 'a', 'b.txt': 'b', ...folder('demo') },
      { message: 'other' },
    );
    expect(again).toEqual({ ...first, headers: expect.anything() });
    expect(await actions()).toHaveLength(2);
    await publish(admin, folder('demo'), { activate: false });
    await publish(admin, folder('demo'));
    const { body } = await get('/demo');
    expect(body.activeVersion.number).toBe(2);
    const third = await publish(admin, { ...folder('demo'), 'b.txt': 'b', 'a.txt': 'a' });
    expect(third.body.activeVersion.number).toBe(3);
  });

  test('published by many at once have numbers of their own', async () => {
    const replies = await Promise.all(
      Array.from({ length: 8 }, (_, i) =>
        publish(i % 2 ? admin : other, folder('demo', `title: t${i}`), { message: `m${i}` }),
      ),
    );
    expect(replies.map(({ status }) => status)).toEqual(Array(8).fill(201));
    const { body } = await get('/demo/versions');
    expect(body.items.map((v: any) => v.number)).toEqual([8, 7, 6, 5, 4, 3, 2, 1]);
    expect(new Set(body.items.map((v: any) => v.message)).size).toBe(8);
    expect(body.items.filter((v: any) => v.active)).toHaveLength(1);
  });

  test('are paged', async () => {
    for (let i = 1; i <= 5; i++) await publish(admin, folder('demo', `title: t${i}`));
    const first = await get('/demo/versions?limit=2');
    expect(first.body.items.map((v: any) => v.number)).toEqual([5, 4]);
    const second = await get(`/demo/versions?limit=3&after=${first.body.next}`);
    expect(second.body.items.map((v: any) => v.number)).toEqual([3, 2, 1]);
    expect(second.body.next).toBeNull();
    expect(await get('/demo/versions?after=x!')).toMatchObject({
      status: 400,
      body: { code: 'bad-request' },
    });
  });

  test('that do not exist are reported', async () => {
    await publish(admin, folder('demo'));
    for (const number of [2, 2_147_483_647]) {
      expect(await get(`/demo/versions/${number}/files`, admin)).toMatchObject({
        status: 404,
        body: { code: 'template-version-not-found' },
      });
    }
    for (const number of [0, -1, 99999999999])
      expect(await get(`/demo/versions/${number}/files`, admin)).toMatchObject({
        status: 400,
        body: { code: 'bad-request' },
      });
    expect(
      await server.request(admin, 'POST', '/api/v1/templates/demo/versions/7/activate', {}),
    ).toMatchObject({ status: 404, body: { code: 'template-version-not-found' } });
  });

  test('an Idempotency-Key publishes once', async () => {
    const key = { 'idempotency-key': 'k1' };
    const first = await publish(admin, folder('demo', 'title: a'), {}, key);
    await publish(admin, folder('demo', 'title: b'));
    const again = await publish(admin, folder('demo', 'title: a'), {}, key);
    expect(again.body).toEqual(first.body);
    expect((await get('/demo')).body.activeVersion.number).toBe(2);
  });
});

test('templates are paged by name', async () => {
  for (const name of ['c', 'a', 'b']) await publish(admin, folder(name));
  const first = await get('?limit=2');
  expect(first.body.items.map((t: any) => t.name)).toEqual(['a', 'b']);
  expect((await get(`?limit=2&after=${first.body.next}`)).body).toMatchObject({
    items: [{ name: 'c' }],
    next: null,
  });
});

describe('deleting', () => {
  const remove = (name: string) => server.request(admin, 'DELETE', `/api/v1/templates/${name}`);

  test('removes an unused template with its versions', async () => {
    await publish(admin, folder('demo'));
    await publish(admin, folder('demo', 'title: x'));
    expect(await remove('demo')).toMatchObject({ status: 204 });
    expect(await get('/demo')).toMatchObject({ status: 404, body: { code: 'template-not-found' } });
    expect(await remove('demo')).toMatchObject({ status: 404 });
    expect(await server.database.db.select().from(templates)).toEqual([]);
    expect(await server.database.db.select().from(templateVersions)).toEqual([]);
    expect((await actions()).at(-1)).toEqual(['ada', 'template.delete', 'demo', { newestVersion: 2 }, null]);
  });

  test('is refused while workspaces use it, which are named', async () => {
    await publish(admin, folder('demo'));
    await addWorkspace(member, 'web', 'demo');
    await addWorkspace(admin, 'api', 'demo', 'failed');
    expect((await get('/demo')).body.workspaces).toBe(2);
    expect(await remove('demo')).toMatchObject({
      status: 409,
      body: { code: 'template-in-use', detail: 'Made from it: ada/api, bob/web.', hint: expect.any(String) },
    });
    expect(await get('/demo')).toMatchObject({ status: 200 });
  });

  test('keeps the versions of deleted workspaces; publishing again continues the numbering', async () => {
    await publish(admin, folder('demo', 'title: one'));
    await addWorkspace(member, 'web', 'demo', 'deleted');
    expect((await get('/demo')).body.workspaces).toBe(0);
    expect(await remove('demo')).toMatchObject({ status: 204 });
    for (const url of ['/demo', '/demo/versions']) expect(await get(url)).toMatchObject({ status: 404 });
    expect((await get('')).body.items).toEqual([]);
    expect(await remove('demo')).toMatchObject({ status: 404 });
    expect(await server.database.db.select().from(workspaces)).toHaveLength(1);
    const again = await publish(admin, folder('demo', 'title: two'), { activate: false });
    expect(again.body).toMatchObject({ title: 'two', activeVersion: { number: 2, active: true } });
  });
});

describe('permissions', () => {
  test('members and read tokens read; they neither publish nor see the files', async () => {
    await publish(admin, folder('demo'));
    const reader = await server.addUser('rita', 'template-admin', ['read']);
    for (const user of [member, reader]) {
      expect(await get('/demo', user)).toMatchObject({ status: 200 });
      for (const [method, url, body] of [
        ['POST', '', { files: folder('demo') }],
        ['POST', '/validate', { files: folder('demo') }],
        ['GET', '/demo/versions/1/files', undefined],
        ['POST', '/demo/versions/1/activate', {}],
        ['DELETE', '/demo', undefined],
      ] as const) {
        expect(await server.request(user, method, `/api/v1/templates${url}`, body)).toMatchObject({
          status: 403,
        });
      }
    }
    expect(await server.request(null, 'GET', '/api/v1/templates')).toMatchObject({ status: 401 });
  });
});
