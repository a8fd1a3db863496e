import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { getUser, signOut } from '@cde/api/identity.ts';
import { createTicket, getWorkspace, listWorkspaces } from '@cde/api/workspaces.ts';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { type FakeServer, makeFakeServer, makeTestHome, Refusal, type TestHome } from '../testing/cli.ts';
import { user, workspace } from '../testing/objects.ts';

// Several servers: which one a command, an ssh host or a token belongs to.

let home: TestHome;
let work: FakeServer;
let lab: FakeServer;
/** The bearer tokens that each server has seen. */
let tokens: { work: Set<string>; lab: Set<string> };

beforeAll(async () => {
  [work, lab] = await Promise.all([makeFakeServer(), makeFakeServer()]);
});
afterAll(async () => {
  expect([...work.faults, ...lab.faults]).toEqual([]);
  await Promise.all([work.close(), lab.close()]);
});
beforeEach(async () => {
  tokens = { work: new Set(), lab: new Set() };
  for (const [name, server] of [
    ['work', work],
    ['lab', lab],
  ] as const) {
    server.on(getUser, ({ headers }) => {
      tokens[name].add(headers.authorization!);
      return user({ username: `ada-${name}` });
    });
    server.on(listWorkspaces, ({ headers }) => {
      tokens[name].add(headers.authorization!);
      return { items: [workspace({ name: `on-${name}` })], next: null };
    });
  }
  home = await makeTestHome();
});
afterEach(() => home.remove());

async function login(server: FakeServer, name: string) {
  const ran = await home.run(['login', server.url, '--name', name, '--token'], { input: `cde_${name}\n` });
  expect(ran).toMatchObject({ code: 0 });
  return ran;
}

const namesOf = async (words: string[], more?: { env?: Record<string, string> }) =>
  (await home.json(words, more)).map(({ name }: { name: string }) => name);

test('a second login becomes current and says so; use, --server and CDE_SERVER choose', async () => {
  await login(work, 'work');
  const second = await login(lab, 'lab');
  expect(second.stderr).toContain(`To switch back: cde server use work`);
  expect(await home.json(['server', 'list'])).toEqual([
    { name: 'work', url: work.url, username: 'ada-work', current: false },
    { name: 'lab', url: lab.url, username: 'ada-lab', current: true },
  ]);
  expect(await namesOf(['list'])).toEqual(['on-lab']);
  const lines = [
    ['list', '--server', 'work'],
    ['--server', 'work', 'list'],
    ['--server=work', 'list'],
    ['--json', '--server', work.url, 'list'],
    // Scripts and kubeconfigs of earlier releases.
    ['list', '--url', work.url],
  ];
  expect(await Promise.all(lines.map((words) => namesOf(words)))).toEqual(lines.map(() => ['on-work']));
  expect(await namesOf(['list'], { env: { CDE_SERVER: 'work' } })).toEqual(['on-work']);
  expect(await namesOf(['list'], { env: { CDE_SERVER: 'work', CDE_URL: lab.url } })).toEqual(['on-work']);
  expect(await home.run(['server', 'use', 'work'])).toMatchObject({ code: 0 });
  expect(await namesOf(['list'])).toEqual(['on-work']);
  expect((await home.run(['server', 'use', 'nowhere'])).stderr).toContain('Signed in to: work, lab.');
  expect(await home.run(['--server', 'nowhere', 'list'])).toMatchObject({
    code: 3,
    stderr: expect.stringContaining('[server-unknown]'),
  });
  expect(await home.run(['--server'])).toMatchObject({
    code: 2,
    stderr: expect.stringContaining('--server needs a value'),
  });
});

test('the SSH host name of a workspace names it and its server', async () => {
  await login(work, 'work');
  await login(lab, 'lab');
  const asked: string[] = [];
  for (const [name, server] of Object.entries({ work, lab }))
    server.on(getWorkspace, ({ params }) => {
      asked.push(`${name} ${params.workspace}`);
      return workspace();
    });
  for (const host of ['web.cde', 'web.work.cde', 'ada--web.work.cde'])
    expect(await home.run(['show', host, '--json'])).toMatchObject({ code: 0 });
  expect(asked).toEqual(['lab web', 'work web', 'work ada~web']);
  for (const words of [
    ['--server', 'lab', 'show', 'web.work.cde'],
    ['stop', 'web.work.cde', 'web.lab.cde'],
  ])
    expect(await home.run(words)).toMatchObject({ code: 2, stderr: expect.stringContaining('[usage]') });
});

test('each server gets its own token, and CDE_TOKEN only the server of the environment', async () => {
  await login(work, 'work');
  await login(lab, 'lab');
  const env = { CDE_URL: work.url, CDE_TOKEN: 'cde_env' };
  await home.run(['list'], { env });
  await home.run(['--server', 'lab', 'list'], { env });
  expect(tokens.work).toEqual(new Set(['Bearer cde_work', 'Bearer cde_env']));
  expect(tokens.lab).toEqual(new Set(['Bearer cde_lab']));
});

test('logging out of the current server does not switch to another one', async () => {
  await login(work, 'work');
  await login(lab, 'lab');
  const out = await home.run(['logout']);
  expect(out.stdout).toBe(`Signed out of ${lab.url}.\n`);
  expect(out.stderr).toContain('No server is current now. You are still signed in to work');
  const list = await home.run(['list']);
  expect(list).toMatchObject({ code: 4, stdout: '' });
  expect(list.stderr).toContain('You are signed in to work. Choose one: cde server use work');
  expect(await home.run(['login'])).toMatchObject({
    code: 4,
    stderr: expect.stringContaining('[no-server]'),
  });
  // Logging out of another server does not change the current one.
  await home.run(['server', 'use', 'work']);
  await login(lab, 'lab');
  await home.run(['logout', 'work']);
  expect(await namesOf(['list'])).toEqual(['on-lab']);
});

test('a valid login is kept, a rejected one is not', async () => {
  await login(work, 'work');
  await login(lab, 'lab');
  const again = await home.run(['login', 'work']);
  expect(again).toMatchObject({ code: 0 });
  expect(again.stdout).toContain(`You are already signed in to ${work.url} as ada-work (member).`);
  expect(again.stderr).toContain(`To switch back: cde server use lab`);
  const file = join(home.path, '.config', 'cde', 'config.json');
  expect(JSON.parse(await readFile(file, 'utf8')).servers[work.url].token).toBe('cde_work');
  // With --force or a rejected token, login continues in the browser, which the fake server does not support.
  for (const words of [
    ['login', 'work', '--force'],
    ['login', 'work'],
  ]) {
    if (!words.includes('--force'))
      work.on(getUser, () => {
        throw new Refusal(401, { code: 'token-expired', message: 'Expired.' });
      });
    expect((await home.run(words)).stderr, words.join(' ')).toContain('[route-not-found]');
  }
});

test('a token that cde made is revoked when another login takes its place', async () => {
  const folder = join(home.path, '.config', 'cde');
  await mkdir(folder, { recursive: true });
  const before = { token: 'cde_browser', username: 'ada', source: 'browser' };
  await writeFile(
    join(folder, 'config.json'),
    JSON.stringify({ version: 1, current: work.url, servers: { [work.url]: before } }),
  );
  const revoked: (string | undefined)[] = [];
  work.on(signOut, ({ headers }) => {
    revoked.push(headers.authorization);
  });
  await login(work, 'work');
  expect(revoked).toEqual(['Bearer cde_browser']);
});

test('a configuration without aliases gets them silently', async () => {
  const folder = join(home.path, '.config', 'cde');
  await mkdir(folder, { recursive: true });
  const old = { token: 'cde_x', username: 'ada', source: 'browser' };
  const urls = [
    'http://127.0.0.1:7080',
    'http://127.0.0.1:7081',
    'https://cde.work.example.com',
    'https://lab.example.com/cde',
  ];
  await writeFile(
    join(folder, 'config.json'),
    JSON.stringify({
      version: 1,
      current: urls[2],
      servers: Object.fromEntries(urls.map((url) => [url, old])),
    }),
  );
  const ran = await home.run(['server', 'list', '--json']);
  expect(ran).toMatchObject({ code: 0, stderr: '' });
  expect(JSON.parse(ran.stdout).map(({ name }: { name: string }) => name)).toEqual([
    'local',
    'local-2',
    'work',
    'lab',
  ]);
  await home.json(['server', 'rename', 'local-2', 'Second']);
  expect(JSON.parse(await readFile(join(folder, 'config.json'), 'utf8')).servers[urls[1]!].alias).toBe(
    'second',
  );
  const refused = ['a.b', '-x', 'a--b', 'x'.repeat(33), 'work'].map((name) =>
    home.run(['server', 'rename', 'local', name]),
  );
  expect((await Promise.all(refused)).map(({ code }) => code)).toEqual([2, 2, 2, 2, 2]);
});

test('an ssh host names its server, and each name has its own pinned key', async () => {
  await login(work, 'work');
  await login(lab, 'lab');
  const asked: string[] = [];
  for (const [name, server] of [
    ['work', work],
    ['lab', lab],
  ] as const)
    server.on(createTicket, ({ params }) => {
      asked.push(`${name} ${params.workspace}`);
      return {
        ticket: 'a.b.c',
        expiresAt: '2100-01-01T00:00:00.000Z',
        workspaceId: '01990000-0000-7000-8000-000000000005',
        workspace: 'ada/web',
        agentKey: 'A'.repeat(43),
        sshHostKey: `ssh-ed25519 AAAA${name}`,
        username: 'ada',
        satellites: [{ name: 'here', url: 'http://127.0.0.1:9' }],
      };
    });
  const env = { CDE_BACKGROUND: 'off' };
  for (const host of ['web.cde', 'bob--web.work.cde'])
    await Promise.all([
      home.run(['ssh', '--stdio', host], { env }),
      home.run(['ssh', '--stdio', '-v', host], { env }),
    ]);
  expect([...new Set(asked)]).toEqual(['lab web', 'work bob~web']);
  const known = await readFile(join(home.path, '.config', 'cde', 'known_hosts'), 'utf8');
  expect(known.trim().split('\n').sort()).toEqual([
    'bob--web.work.cde ssh-ed25519 AAAAwork',
    'web.cde ssh-ed25519 AAAAlab',
  ]);
  expect((await home.run(['ssh', '--stdio', 'web.nowhere.cde'], { env })).stderr).toContain(
    '[server-unknown]',
  );

  await home.run(['config-ssh', '--ssh-config', join(home.path, 'ssh', 'config')]);
  const hosts = await readFile(join(home.path, 'ssh', 'cde', 'config'), 'utf8');
  const names = [...hosts.matchAll(/^Host (\S+)/gm)].map(([, name]) => name);
  expect(names).toEqual(['*.work.cde', '*.lab.cde', '*.cde']);
});
