import { createToken } from '@cde/api/identity.ts';
import { listPorts } from '@cde/api/ports.ts';
import { getTemplate } from '@cde/api/templates.ts';
import { createWorkspace, getWorkspace, renameWorkspace } from '@cde/api/workspaces.ts';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type FakeServer, makeFakeServer, makeTestHome, Refusal, type TestHome } from '../testing/cli.ts';
import { template, workspace } from '../testing/objects.ts';

let home: TestHome;
let server: FakeServer;
let env: Record<string, string>;
beforeAll(async () => {
  home = await makeTestHome();
  server = await makeFakeServer();
  env = { CDE_URL: server.url, CDE_TOKEN: 'cde_stand-in' };
  server.on(getWorkspace, ({ params }) =>
    workspace(params.workspace === 'bob~api' ? { owner: 'bob', name: 'api', home: '/srv/bob #1' } : {}),
  );
});
afterAll(async () => {
  expect(server.faults).toEqual([]);
  await server.close();
  await home.remove();
});

test('cde open prints the addresses of the dashboard and of editors', async () => {
  const rows: [string[], string][] = [
    [['open'], `${server.url}/`],
    [['open', 'web'], `${server.url}/workspaces/ada/web`],
    [['open', 'web', '--in', 'vscode'], 'vscode://vscode-remote/ssh-remote+web.cde/home/ada'],
    [
      ['open', 'bob/api', '--in', 'vscode', '--folder', 'my project'],
      'vscode://vscode-remote/ssh-remote+bob--api.cde/srv/bob%20%231/my%20project',
    ],
    [
      ['open', 'web', '--in', 'jetbrains', '--folder', '/srv/x'],
      'jetbrains-gateway://connect#host=web.cde&port=22&user=ada&type=ssh&deploy=false&projectPath=%2Fsrv%2Fx',
    ],
  ];
  const ran = await Promise.all(rows.map(([words]) => home.run([...words, '--print'], { env })));
  expect(ran.map(({ stdout }) => stdout)).toEqual(rows.map(([, url]) => `${url}\n`));
  expect(ran[2]!.stderr).toContain('cde config-ssh');
  expect(await home.json(['open', 'web'], { env })).toEqual({ url: `${server.url}/workspaces/ada/web` });
});

test('cde open --port opens a shared port, and says how to share another', async () => {
  const port = { listening: true, process: 'node', level: 'owner', limitedTo: 'owner', elsewhere: [] };
  server.on(listPorts, () => ({
    items: [
      { ...port, port: 3000, url: 'http://3000--web--ada.example.com/' },
      { ...port, port: 4000, level: null, limitedTo: null, url: null },
    ],
    mostLevel: 'public',
    by: 'name',
    reportedAt: null,
  }));
  const [shared, other, wrong] = await Promise.all([
    home.run(['open', 'web', '--port', '3000'], { env }),
    home.run(['open', 'web', '--port', '4000'], { env }),
    home.run(['open', 'web', '--port', 'x']),
  ]);
  expect(shared).toMatchObject({ code: 0, stdout: 'http://3000--web--ada.example.com/\n' });
  expect(other).toMatchObject({ code: 3, stderr: expect.stringContaining('cde share web 4000') });
  // What is wrong with the command line is said before anything is asked of a server.
  expect(wrong).toMatchObject({ code: 2, stderr: expect.stringContaining('[usage]') });
});

test('cde rename sends the id and says what ssh calls it now', async () => {
  const asked: unknown[] = [];
  server.on(renameWorkspace, ({ params, body }) => {
    asked.push([params.workspace, body]);
    return workspace({ name: body.name, status: 'running' });
  });
  const ran = await home.run(['rename', 'web', 'shop'], { env });
  expect(ran).toMatchObject({ code: 0, stdout: 'web is now shop. Its SSH host name is shop.cde\n' });
  expect(ran.stderr).toContain('Open sessions are kept.');
  expect(asked).toEqual([[workspace().id, { name: 'shop' }]]);
});

test('a refusal of the API names the argument or option, and the field with --json', async () => {
  const refuse = (path: string, message: string, code = 'bad-request') => {
    throw new Refusal(code === 'bad-request' ? 400 : 422, {
      code,
      message: code === 'bad-request' ? "The request's body is not valid." : 'A parameter is not valid.',
      detail: `${path}: ${message}`,
      issues: [{ path, message }],
    });
  };
  server.on(getTemplate, () => template());
  server.on(createWorkspace, () => refuse('name', 'use lower-case letters'));
  server.on(createToken, () => refuse('expiresInDays', 'at most 365'));
  const [named, days, json] = await Promise.all([
    home.run(['create', 'web', '-t', 'local'], { env }),
    home.run(['token', 'create', '--name', 'ci', '--days', '9'], { env }),
    home.run(['create', 'web', '-t', 'local', '--json'], { env }),
  ]);
  expect(named).toMatchObject({
    code: 2,
    stderr: 'error: NAME is not valid: use lower-case letters. [bad-request]\n  → See: cde create --help\n',
  });
  expect(days.stderr).toContain('--days is not valid: at most 365.');
  expect(JSON.parse(json.stderr)).toMatchObject({ issues: [{ path: 'name' }] });
  server.on(createWorkspace, () => refuse('cpus', 'at most 8', 'parameters-invalid'));
  const parameter = await home.run(['create', 'web', '-t', 'local', '-p', 'cpus=99'], { env });
  expect(parameter.stderr).toContain('--param cpus  at most 8');
});
