import { existsSync } from 'node:fs';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type Api, agentPids, makeApi } from '../kit/api.ts';
import { type Machine, makeMachine, type Running } from '../kit/machine.ts';
import { makeDatabase, type OwnDatabase } from '../kit/postgres.ts';
import { until } from '../kit/until.ts';

/** Mistakes of users, and processes that die: the CLI's message, its exit code, and the way to recover. */

let machine: Machine;
let database: OwnDatabase;
let server: Running;
let api: Api;
beforeAll(async () => {
  machine = await makeMachine();
  await mkdir(machine.env.HOME!, { recursive: true });
  database = await makeDatabase(join(machine.folder, 'database'));
  machine.env.DATABASE_URL = database.url;
  server = await startServer();
  api = await makeApi(machine, `http://${machine.env.CDE_LISTEN}`);
});
// A failed attempt may have left no server.
beforeEach(async () => {
  if (server.process.exitCode !== null || server.process.signalCode !== null) server = await startServer();
});
afterAll(() => machine?.remove());

async function startServer(): Promise<Running> {
  const started = machine.begin(['server', 'start']);
  await started.says('Ctrl-C stops');
  return started;
}

let names = 0;
/** Unique, because an earlier attempt may have taken the name. */
const newName = (base: string) => `${base}-${++names}`;

const show = async (name: string) => (await api('GET', `/api/v1/workspaces/${name}`)).body;

async function push(name: string, lines: string[]) {
  await mkdir(join(machine.folder, name), { recursive: true });
  await writeFile(join(machine.folder, name, 'template.yaml'), `${lines.join('\n')}\n`);
  return machine.cde('template', 'push', name);
}
const withScript = (name: string, script: string, timeout = '10m') =>
  push(name, [
    `name: ${name}`,
    'provider: local',
    'startup:',
    `  timeout: ${timeout}`,
    '  script: |',
    `    ${script}`,
  ]);

describe('a startup script', () => {
  test.each([
    [
      'that fails',
      'fails',
      'echo before; echo trouble >&2; exit 3',
      '10m',
      /failed with exit code 3 after .*\[startup-failed\]/,
      'trouble',
    ],
    [
      'that never ends',
      'endless',
      'echo waiting; sleep 1000',
      // Long enough for a busy machine to start a shell.
      '8s',
      /did not finish within 8s and was stopped\. \[startup-timeout\]/,
      'waiting',
    ],
  ])('%s: reports the reason and its output with exit code 7, and a fixed version works', async (_, name, script, timeout, words, output) => {
    expect(await withScript(name, script, timeout)).toMatchObject({ code: 0 });
    const workspace = newName(name);
    const refused = await machine.cde('create', workspace, '--template', name);
    expect(refused.code).toBe(7);
    expect(refused.stderr).toMatch(words);
    expect(refused.stderr).toContain(output);
    expect(refused.stderr).toContain(`cde logs ${workspace}`);
    expect(await machine.cde('logs', workspace)).toMatchObject({
      stdout: expect.stringContaining(output),
    });
    expect(await show(workspace)).toMatchObject({ status: 'failed' });
    // The workspace runs, so that its developer can look.
    expect(await machine.cde('ssh', workspace, '--', 'echo inside')).toMatchObject({
      code: 0,
      stdout: 'inside\n',
    });
    expect(await withScript(name, 'echo fixed')).toMatchObject({ code: 0 });
    expect(await machine.cde('update', workspace)).toMatchObject({ code: 0 });
    expect(await show(workspace)).toMatchObject({ status: 'running', reason: null });
  });
});

test.each([
  [
    'an unknown key',
    ['name: bad', 'provider: local', 'startupp:', '  script: echo'],
    /bad\/template\.yaml:3:1: .*startupp/,
  ],
  [
    'a bad expression',
    // biome-ignore lint/suspicious/noTemplateCurlyInString: the template's own expression
    ['name: bad', 'provider: local', 'env:', '  A: ${{ parameters.nothing }}'],
    /bad\/template\.yaml:4:\d+: .*nothing/,
  ],
  [
    'a default out of range',
    [
      'name: bad',
      'provider: local',
      'parameters:',
      '  - name: cpus',
      '    type: number',
      '    default: 9',
      '    max: 4',
    ],
    /bad\/template\.yaml:6:14: .*4/,
  ],
])('a template with %s is rejected with file, line and column, and not published', async (_, lines, place) => {
  const refused = await push('bad', lines);
  expect(refused.code).toBe(1);
  expect(refused.stderr).toMatch(place);
  expect(refused.stderr).toContain('[template-invalid]');
  expect(await machine.cde('template', 'show', 'bad')).toMatchObject({ code: 3 });
});

test.each([
  ['a parameter out of range', ['sized', '--template', 'local', '--param', 'memory=999'], 2, /memory.*256/],
  ['a parameter that does not exist', ['sized', '--template', 'local', '--param', 'memroy=4'], 2, /memroy/],
  [
    'a name that is taken',
    ['hello', '--template', 'local'],
    5,
    /A workspace named hello already exists[\s\S]*workspace-name-taken[\s\S]*Choose another name/,
  ],
  [
    'a name that is too long',
    ['x'.repeat(80), '--template', 'local'],
    2,
    /\bNAME\b[\s\S]*1 to 32 lower-case letters/,
  ],
  [
    'a name with odd characters',
    ['Ödd näme', '--template', 'local'],
    2,
    /\bNAME\b[\s\S]*1 to 32 lower-case letters/,
  ],
  [
    'a name that climbs',
    ['../../etc', '--template', 'local'],
    2,
    /\bNAME\b[\s\S]*1 to 32 lower-case letters/,
  ],
])('create with %s', async (_, args, code, words) => {
  const refused = await machine.cde('create', ...args);
  expect(refused.stderr).toMatch(words);
  expect(refused.code).toBe(code);
});

test('an expired token gives exit code 4 and says what to do, and a new one works', async () => {
  const name = newName('old');
  const made = await machine.cde('token', 'create', '--name', name, '--days', '1');
  const token = made.stdout.trim();
  const use = () => machine.begin(['list'], { CDE_TOKEN: token }).ended;
  expect(await use()).toMatchObject({ code: 0 });
  const client = new pg.Client({ connectionString: database.url });
  await client.connect();
  await client.query("UPDATE api_tokens SET expires_at = now() - interval '1 second' WHERE name = $1", [
    name,
  ]);
  await client.end();
  const refused = await use();
  expect(refused).toMatchObject({
    code: 4,
    stderr: expect.stringMatching(/expired.*\[token-expired\][\s\S]*cde login/),
  });
  expect(await machine.cde('list')).toMatchObject({ code: 0 });
});

test('after its agent was killed a workspace starts again by itself, and its build gives the reason', async () => {
  const { id, latestBuild } = await show('hello');
  const [agent] = await agentPids(id);
  process.kill(agent!, 'SIGKILL');
  const after = await until(
    () => show('hello'),
    (workspace) =>
      workspace.latestBuild.number > latestBuild.number && workspace.latestBuild.status === 'succeeded',
  );
  expect(after).toMatchObject({ status: 'running' });
  const again = await agentPids(id);
  expect(again).toHaveLength(1);
  expect(again[0]).not.toBe(agent);
  expect(await machine.cde('builds', 'hello')).toMatchObject({
    stdout: expect.stringMatching(/The agent was killed by SIGKILL/),
  });
  expect(await machine.cde('ssh', 'hello', '--', 'echo back')).toMatchObject({ code: 0, stdout: 'back\n' });
});

test('`logs --follow` and an open `ssh` survive kill -9 of the server', async () => {
  const name = newName('counted');
  const home = async (workspace: string) =>
    join(machine.env.CDE_DATA_DIR!, 'homes', (await show(workspace)).id);
  await rm(join(await home('hello'), 'go'), { force: true });
  await withScript(
    'counting',
    'for i in $(seq 1 40); do echo line $i; while [ $i = 2 ] && [ ! -e ~/go ]; do sleep 0.1; done; done; touch ~/counted',
  );
  expect(await machine.cde('create', name, '--template', 'counting', '--no-wait')).toMatchObject({ code: 0 });
  const counting = await home(name);
  const entering = await home('hello');
  const following = machine.begin(['logs', name, '--follow']);
  const session = machine.begin([
    'ssh',
    'hello',
    '--',
    'echo begun; until [ -e ~/go ]; do sleep 0.1; done; echo ended; exit 9',
  ]);
  await Promise.all([following.says('line 2'), session.says('begun')]);

  const { stdout } = await machine.run('pgrep', ['-P', String(server.process.pid)]);
  for (const pid of stdout.trim().split('\n')) process.kill(Number(pid), 'SIGKILL');
  await server.ended;
  // The script ends while the server is down. Its lines must arrive before its end does, because that ends `logs`.
  await writeFile(join(counting, 'go'), '');
  await until(() => existsSync(join(counting, 'counted')), 'the end of the script');
  server = await startServer();

  expect(await machine.cde('ssh', 'hello', '--', 'echo again')).toMatchObject({ code: 0, stdout: 'again\n' });
  await writeFile(join(entering, 'go'), '');
  expect(await session.ended).toMatchObject({ code: 9, stdout: 'begun\nended\n', stderr: '' });
  const followed = await following.ended;
  expect(followed).toMatchObject({ code: 0 });
  const lines = [...followed.stdout.matchAll(/line (\d+)$/gm)].map(([, number]) => Number(number));
  expect(lines).toEqual(Array.from({ length: 40 }, (_, index) => index + 1));
});
