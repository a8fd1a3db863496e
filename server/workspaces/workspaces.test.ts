import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { until } from '../../tests/kit/until.ts';
import { readConfig } from '../config.ts';
import { type ControlPlane, startControlPlane } from '../control-plane.ts';
import { makeLog } from '../log.ts';
import type { EndCause } from '../providers/provider.ts';
import { addUser, makeTestDatabase, type TestDatabase, type TestUser } from '../testing.ts';
import { makeScriptedProvider, type ScriptedProvider } from './scripted-provider.ts';

const template = `name: plain
provider: local
parameters:
  - name: size
    type: number
    default: 1
    min: 1
    max: 4
startup:
  script: echo hello
`;

let database: TestDatabase;
let server: ControlPlane;
let provider: ScriptedProvider;
let folder: string;
let ada: TestUser;
let admin: TestUser;

beforeAll(async () => {
  database = await makeTestDatabase();
  folder = await mkdtemp(join(tmpdir(), 'cde-data-'));
  provider = makeScriptedProvider();
  server = await startControlPlane({
    config: readConfig([], { CDE_DATA_DIR: folder, CDE_LISTEN: '127.0.0.1:0' }),
    database,
    log: makeLog('silent'),
    providers: new Map([['local', provider]]),
    checkReplies: true,
  });
  ada = await addUser(database, 'ada');
  admin = await addUser(database, 'adm', 'owner');
  const published = await call(admin, 'POST', '/api/v1/templates', { files: { 'template.yaml': template } });
  expect(published.status).toBe(201);
});
afterAll(async () => {
  await server?.stop();
  await database?.drop();
  await rm(folder, { recursive: true, force: true });
});
beforeEach(() => {
  provider.calls.length = 0;
  provider.launches.length = 0;
  provider.nextMoves.length = 0;
  provider.observation = null;
});

async function call(
  user: TestUser | { token: string } | null,
  method: string,
  path: string,
  body?: unknown,
  headers: Record<string, string> = {},
): Promise<{ status: number; body: any }> {
  const reply = await fetch(server.url + path, {
    method,
    headers: {
      ...(user && { authorization: `Bearer ${user.token}` }),
      ...(body !== undefined && { 'content-type': 'application/json' }),
      ...headers,
    },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  });
  const text = await reply.text();
  return { status: reply.status, body: text === '' ? undefined : JSON.parse(text) };
}

const show = async (name: string, user = ada) => (await call(user, 'GET', `/api/v1/workspaces/${name}`)).body;
const untilStatus = (name: string, ...statuses: string[]) =>
  until(
    () => show(name),
    (workspace) => statuses.includes(workspace.status),
  );
const stageOf = (workspace: any) => workspace.latestBuild?.stages.at(-1)?.name;

const keys = {
  tlsPublicKey: 'A'.repeat(43),
  sshHostKey: `ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA${'A'.repeat(42)}`,
  version: '1',
  hostname: 'here',
};
const payloadOf = (token: string) => JSON.parse(Buffer.from(token.split('.')[1]!, 'base64url').toString());

/** Plays the agent of the latest launch: registers, and reports the startup script. */
async function agentArrives(
  report: object | null = { state: 'done', exitCode: 0, signal: null, timedOut: false, durationMs: 12 },
) {
  await until(
    async () => provider.launches.length,
    (count) => count > 0,
  );
  const agent = { token: provider.launches.shift()!.token };
  const registered = await call(agent, 'POST', '/api/v1/agent/register', keys);
  expect(registered.status).toBe(200);
  for (const { listenToken } of registered.body.satellites)
    expect(payloadOf(listenToken)).toMatchObject({ kind: 'listen', satellite: 'embedded' });
  if (report) expect((await call(agent, 'POST', '/api/v1/agent/startup', report)).status).toBe(204);
  return agent;
}
async function running(name: string) {
  expect((await call(ada, 'POST', '/api/v1/workspaces', { name, template: 'plain' })).status).toBe(201);
  const agent = await agentArrives();
  await untilStatus(name, 'running');
  return agent;
}

test('a new workspace goes through all stages, and its build log has every line once', async () => {
  provider.nextMoves.push({ kind: 'done', state: { home: '/srv/one' } });
  const created = await call(ada, 'POST', '/api/v1/workspaces', {
    name: 'one',
    template: 'plain',
    parameters: { size: 2 },
  });
  expect(created).toMatchObject({
    status: 201,
    body: {
      owner: 'ada',
      name: 'one',
      // The first reconcile step may have come before the reply was read.
      status: expect.stringMatching(/^(pending|starting)$/),
      parameters: { size: 2 },
      home: '/home/ada',
    },
  });
  await until(
    () => show('one'),
    (workspace) => stageOf(workspace) === 'agent',
  );
  const agent = await agentArrives(null);
  await until(
    () => show('one'),
    (workspace) => stageOf(workspace) === 'startup',
  );
  await call(agent, 'POST', '/api/v1/agent/logs', {
    process: 'p1',
    lines: [
      { seq: 1, at: new Date().toISOString(), source: 'startup', stream: 'stdout', text: 'hello' },
      { seq: 2, at: new Date().toISOString(), source: 'startup', stream: 'stderr', text: 'nul\0byte' },
    ],
  });
  // A batch that is resent because its reply was lost is stored once.
  await call(agent, 'POST', '/api/v1/agent/logs', {
    process: 'p1',
    lines: [
      { seq: 2, at: new Date().toISOString(), source: 'startup', stream: 'stderr', text: 'nul\0byte' },
      { seq: 3, at: new Date().toISOString(), source: 'startup', stream: 'stdout', text: 'third' },
    ],
  });
  await call(agent, 'POST', '/api/v1/agent/startup', {
    state: 'done',
    exitCode: 0,
    signal: null,
    timedOut: false,
    durationMs: 5,
  });
  const workspace = await untilStatus('one', 'running');
  expect(workspace.latestBuild.stages.map((stage: any) => [stage.name, stage.status])).toEqual(
    ['queued', 'render', 'provision', 'agent', 'startup', 'ready'].map((name) => [name, 'succeeded']),
  );
  expect(workspace.agent).toMatchObject({ connected: true, sshHostKey: keys.sshHostKey });
  // Where its provider put it.
  expect(workspace.home).toBe('/srv/one');
  const log = await call(ada, 'GET', `/api/v1/builds/${workspace.latestBuild.id}/log`);
  expect(log.body.done).toBe(true);
  const texts = log.body.lines.map((line: any) => line.text);
  expect(texts).toEqual(
    expect.arrayContaining(['starting compute', 'agent connected', 'hello', 'nul\uFFFDbyte', 'third']),
  );
  expect(texts.filter((text: string) => text.startsWith('nul'))).toHaveLength(1);
  expect(log.body.lines.map((line: any) => line.seq)).toEqual(
    [...log.body.lines.keys()].map((index) => index + 1),
  );
});

test("an agent's keys and names are validated, as they end up in known_hosts files and on terminals", async () => {
  await call(ada, 'POST', '/api/v1/workspaces', { name: 'liar', template: 'plain' });
  await until(
    async () => provider.launches.length,
    (count) => count > 0,
  );
  const agent = { token: provider.launches[0]!.token };
  const key = keys.sshHostKey;
  for (const lie of [
    { tlsPublicKey: 'short' },
    { tlsPublicKey: `${'A'.repeat(43)}\n` },
    { tlsPublicKey: 'B'.repeat(43) },
    { sshHostKey: `${key}\n* ssh-ed25519 AAAA` },
    { sshHostKey: `${key} comment` },
    { sshHostKey: key.replace('ssh-ed25519', 'ssh-rsa') },
    { sshHostKey: '' },
    { version: '\x1b[2J' },
    { version: 'v'.repeat(65) },
    { hostname: 'a\nb' },
  ]) {
    const reply = await call(agent, 'POST', '/api/v1/agent/register', { ...keys, ...lie });
    expect([reply.status, reply.body.code], JSON.stringify(lie)).toEqual([400, 'bad-request']);
  }
  await agentArrives();
  await untilStatus('liar', 'running');
  const stats = {
    at: new Date().toISOString(),
    ...{ cpuPercent: 1, load1: 0, memoryUsedBytes: 1, memoryLimitBytes: null },
    ...{ homeUsedBytes: 1, homeTotalBytes: 2, openPorts: [] as object[], sessions: [] },
  };
  expect((await call(agent, 'POST', '/api/v1/agent/stats', stats)).status).toBe(200);
  for (const process of ['\0', '\x9b31m', 'p'.repeat(257)]) {
    const lie = { ...stats, openPorts: [{ port: 1, process }] };
    expect((await call(agent, 'POST', '/api/v1/agent/stats', lie)).status).toBe(400);
  }
});

test('stop keeps the workspace, start brings it back, delete frees its name', async () => {
  const old = await running('two');
  expect((await call(ada, 'POST', '/api/v1/workspaces/two/stop', {})).status).toBe(202);
  await untilStatus('two', 'stopped');
  expect((await call(old, 'POST', '/api/v1/agent/stats', {})).status).toBe(410);
  expect((await call(ada, 'POST', '/api/v1/workspaces/two/stop', {})).body.transition).toBe('stop');
  await call(ada, 'POST', '/api/v1/workspaces/two/start', {});
  await agentArrives();
  await untilStatus('two', 'running');
  expect((await call(ada, 'DELETE', '/api/v1/workspaces/two?home=discard')).status).toBe(202);
  await until(
    () => call(ada, 'GET', '/api/v1/workspaces/two'),
    (reply) => reply.status === 404,
  );
  expect(provider.calls).toContain('remove discard');
  expect(
    (await call(ada, 'POST', '/api/v1/workspaces', { name: 'two', template: 'plain', start: false })).body
      .status,
  ).toBe('stopped');
});

test('a step that finds nothing new writes nothing and is repeated', async () => {
  await running('patient');
  const revision = async () =>
    (await database.pool.query("SELECT revision FROM workspaces WHERE name = 'patient'")).rows[0].revision;
  const before = await revision();
  const waits = { kind: 'pending', state: { since: 'noon', at: [1] }, retryAfterMs: 5 } as const;
  provider.nextMoves.push(waits, waits, { ...waits, state: { at: [1], since: 'noon' } }, waits);
  expect((await call(ada, 'POST', '/api/v1/workspaces/patient/stop', {})).status).toBe(202);
  await untilStatus('patient', 'stopped');
  expect(provider.calls.filter((one) => one === 'stop')).toHaveLength(5);
  // Begun, one new state, done.
  expect((await revision()) - before).toBe(3);
});

test('while the provider waits, the workspace shows why', async () => {
  const why = 'No node fits the pod: 1 Insufficient cpu.';
  const waits = { kind: 'pending', state: {}, retryAfterMs: 50, message: why } as const;
  provider.nextMoves.push(...Array.from({ length: 10_000 }, () => waits));
  await call(ada, 'POST', '/api/v1/workspaces', { name: 'waits', template: 'plain' });
  const shown = await until(
    () => call(ada, 'GET', '/api/v1/workspaces/waits'),
    (reply) => reply.body.reason === why,
  );
  expect(shown.body.status).toBe('starting');
  const { items } = (await call(ada, 'GET', '/api/v1/workspaces?search=waits')).body;
  expect(items).toMatchObject([{ name: 'waits', reason: why }]);
  provider.nextMoves.length = 0;
  await agentArrives();
  expect(await untilStatus('waits', 'running')).toMatchObject({ reason: null });
});

test('invalid names and parameters are rejected with every reason', async () => {
  await call(ada, 'POST', '/api/v1/workspaces', { name: 'taken', template: 'plain', start: false });
  expect(await call(ada, 'POST', '/api/v1/workspaces', { name: 'taken', template: 'plain' })).toMatchObject({
    status: 409,
    body: { code: 'workspace-name-taken' },
  });
  for (const name of ['', 'Ada', 'a_b', '-a', 'a-', 'a--b', 'ä', 'x'.repeat(33), '../etc'])
    expect(await call(ada, 'POST', '/api/v1/workspaces', { name, template: 'plain' })).toMatchObject({
      status: 400,
      body: { code: 'bad-request' },
    });
  expect(await call(ada, 'POST', '/api/v1/workspaces', { name: 'fine', template: 'none' })).toMatchObject({
    status: 404,
    body: { code: 'template-not-found' },
  });
  expect(
    await call(ada, 'POST', '/api/v1/workspaces', {
      name: 'fine',
      template: 'plain',
      parameters: { size: 9, colour: 'red' },
    }),
  ).toMatchObject({
    status: 422,
    body: {
      code: 'parameters-invalid',
      issues: expect.arrayContaining([expect.objectContaining({ path: expect.stringContaining('size') })]),
    },
  });
});

test('a failed startup script fails the build with its exit code, and the workspace can be started again', async () => {
  await call(ada, 'POST', '/api/v1/workspaces', { name: 'script', template: 'plain' });
  await agentArrives({ state: 'done', exitCode: 3, signal: null, timedOut: false, durationMs: 1500 });
  const failed = await untilStatus('script', 'failed');
  expect(failed.latestBuild.error).toMatchObject({
    code: 'startup-failed',
    stage: 'startup',
    fault: 'user',
    message: expect.stringContaining('exit code 3'),
  });
  expect(failed.agent.connected).toBe(true);
  await call(ada, 'POST', '/api/v1/workspaces/script/start', {});
  await agentArrives();
  await untilStatus('script', 'running');
});

test('a startup script that times out fails the build', async () => {
  await call(ada, 'POST', '/api/v1/workspaces', { name: 'endless', template: 'plain' });
  await agentArrives({
    state: 'done',
    exitCode: null,
    signal: 'SIGTERM',
    timedOut: true,
    durationMs: 600_000,
  });
  expect((await untilStatus('endless', 'failed')).latestBuild.error.code).toBe('startup-timeout');
});

test("a provider's failure is reported, and its state is kept", async () => {
  provider.nextMoves.push({
    kind: 'failed',
    state: { half: true },
    error: { code: 'home-disk-full', message: 'The disk is full.', hint: 'Free some.', fault: 'system' },
  });
  await call(ada, 'POST', '/api/v1/workspaces', { name: 'full', template: 'plain' });
  const failed = await untilStatus('full', 'failed');
  expect(failed).toMatchObject({
    reason: 'The disk is full.',
    latestBuild: { status: 'failed', error: { code: 'home-disk-full', stage: 'provision' } },
  });
  await call(ada, 'POST', '/api/v1/workspaces/full/start', {});
  await agentArrives();
  await untilStatus('full', 'running');
});

test('an agent that exits before it registers fails the build at once', async () => {
  await call(ada, 'POST', '/api/v1/workspaces', { name: 'dies', template: 'plain' });
  const workspace = await until(
    () => show('dies'),
    (value) => stageOf(value) === 'agent',
  );
  provider.observation = {
    kind: 'gone',
    cause: 'agent-exited',
    message: 'The agent exited with code 1: no such file',
  };
  provider.exit(workspace.id);
  expect((await untilStatus('dies', 'failed')).latestBuild.error).toMatchObject({
    code: 'agent-exited',
    detail: expect.stringContaining('no such file'),
  });
});

/** Ends the compute, and waits until the server has restarted it. */
async function recovers(name: string, number: number, cause: EndCause, message: string): Promise<void> {
  const workspace = await show(name);
  provider.observation = { kind: 'gone', cause, message };
  provider.exit(workspace.id);
  await agentArrives();
  const again = await until(
    () => show(name),
    (value) => value.status === 'running' && value.latestBuild.number === number,
  );
  expect(again.latestBuild).toMatchObject({ initiator: 'system', reason: message });
}

test('compute that ends by itself is restarted a few times', async () => {
  await running('crash');
  for (let number = 2; number <= 4; number++)
    await recovers('crash', number, 'out-of-memory', 'The agent ran out of memory.');
  const workspace = await show('crash');
  provider.observation = { kind: 'gone', cause: 'out-of-memory', message: 'The agent ran out of memory.' };
  provider.exit(workspace.id);
  expect((await untilStatus('crash', 'failed')).reason).toMatch(/out of memory\. This happened too often/);
});

test('compute that is removed, as when nodes are drained one by one, is restarted many times', async () => {
  await running('moved');
  for (let number = 2; number <= 8; number++)
    await recovers('moved', number, 'node-drained', `The node n${number} was drained.`);
});

test('cancelling a start takes it down, and so does a stop', async () => {
  await call(ada, 'POST', '/api/v1/workspaces', { name: 'wait', template: 'plain' });
  const first = await until(
    () => show('wait'),
    (value) => stageOf(value) === 'agent',
  );
  expect((await call(ada, 'POST', `/api/v1/builds/${first.latestBuild.id}/cancel`, {})).status).toBe(202);
  const cancelled = await until(
    () => show('wait'),
    (value) => value.latestBuild.status === 'cancelled',
  );
  expect(cancelled).toMatchObject({ status: 'stopped', desired: 'stopped' });
  expect((await call(ada, 'POST', `/api/v1/builds/${first.latestBuild.id}/cancel`, {})).body.code).toBe(
    'build-ended',
  );

  await call(ada, 'POST', '/api/v1/workspaces/wait/start', {});
  await until(
    () => show('wait'),
    (value) => stageOf(value) === 'agent',
  );
  await call(ada, 'POST', '/api/v1/workspaces/wait/stop', {});
  const stopped = await until(
    () => show('wait'),
    (value) => value.status === 'stopped' && value.latestBuild.status === 'succeeded',
  );
  expect(stopped.latestBuild).toMatchObject({ transition: 'stop', status: 'succeeded' });
  const builds = (await call(ada, 'GET', '/api/v1/workspaces/wait/builds')).body.items;
  expect(builds.map((build: any) => [build.transition, build.status])).toEqual([
    ['stop', 'succeeded'],
    ['start', 'cancelled'],
    ['start', 'cancelled'],
  ]);
});

test('update moves to the active version and takes new parameters', async () => {
  await running('moves');
  await call(admin, 'POST', '/api/v1/templates', {
    files: { 'template.yaml': template.replace('max: 4', 'max: 8') },
  });
  expect((await show('moves')).outdated).toBe(true);
  provider.launches.length = 0;
  expect(
    (await call(ada, 'POST', '/api/v1/workspaces/moves/update', { parameters: { size: 6 } })).status,
  ).toBe(202);
  await agentArrives();
  expect(await untilStatus('moves', 'running')).toMatchObject({
    outdated: false,
    parameters: { size: 6 },
    latestBuild: { transition: 'update' },
  });
});

test('update of an up-to-date workspace returns its last build, unless forced', async () => {
  await running('current');
  const before = (await show('current')).latestBuild;
  const update = (body: object) => call(ada, 'POST', '/api/v1/workspaces/current/update', body);
  const size = (await show('current')).parameters.size;
  for (const body of [{}, { parameters: { size } }]) expect((await update(body)).body.id).toBe(before.id);
  expect(await show('current')).toMatchObject({ status: 'running', latestBuild: { id: before.id } });
  const forced = (await update({ force: true })).body;
  expect(forced).toMatchObject({ transition: 'update', number: before.number + 1 });
  await agentArrives();
  await untilStatus('current', 'running');
  await call(ada, 'POST', '/api/v1/workspaces/current/stop', {});
  const stopped = await untilStatus('current', 'stopped');
  expect((await update({})).body.id).toBe(stopped.latestBuild.id);
});

test('rename changes the name and nothing else; the old one is free again', async () => {
  await running('old-name');
  const before = await show('old-name');
  const rename = (ref: string, name: string) => call(ada, 'PATCH', `/api/v1/workspaces/${ref}`, { name });
  expect((await rename('old-name', 'Not A Name')).body.code).toBe('bad-request');
  const renamed = await rename('old-name', 'new-name');
  expect(renamed).toMatchObject({
    status: 200,
    body: { id: before.id, name: 'new-name', status: 'running' },
  });
  expect((await call(ada, 'GET', '/api/v1/workspaces/old-name')).status).toBe(404);
  expect(await show('new-name')).toMatchObject({ id: before.id, latestBuild: { id: before.latestBuild.id } });
  // Renaming to the same name changes nothing.
  expect((await rename('new-name', 'new-name')).status).toBe(200);
  const body = { name: 'old-name', template: 'plain', start: false };
  expect((await call(ada, 'POST', '/api/v1/workspaces', body)).status).toBe(201);
  expect((await rename('new-name', 'old-name')).body.code).toBe('workspace-name-taken');
  const audited = await call(admin, 'GET', '/api/v1/audit?action=workspace.rename');
  expect(audited.body.items).toMatchObject([{ before: { name: 'old-name' }, after: { name: 'new-name' } }]);
});

test('the same Idempotency-Key creates one workspace', async () => {
  const send = () =>
    call(
      ada,
      'POST',
      '/api/v1/workspaces',
      { name: 'once', template: 'plain', start: false },
      { 'idempotency-key': 'k1' },
    );
  const [first, second] = [await send(), await send()];
  expect(first.status).toBe(201);
  expect(second).toEqual(first);
});

test("others' workspaces are hidden from members, readable by auditors, and opened to nobody", async () => {
  await running('mine');
  const eve = await addUser(database, 'eve');
  const auditor = await addUser(database, 'aud', 'auditor');
  expect((await call(eve, 'GET', '/api/v1/workspaces/ada~mine')).status).toBe(404);
  expect((await call(eve, 'POST', '/api/v1/workspaces/ada~mine/stop', {})).status).toBe(404);
  expect((await call(eve, 'GET', '/api/v1/workspaces')).body.items).toEqual([]);
  expect((await call(auditor, 'GET', '/api/v1/workspaces/ada~mine')).status).toBe(200);
  expect((await call(auditor, 'POST', '/api/v1/workspaces/ada~mine/stop', {})).status).toBe(403);
  expect((await call(admin, 'POST', '/api/v1/workspaces/ada~mine/tickets', { clientKey: 'x' })).status).toBe(
    403,
  );
  const audit = await call(auditor, 'GET', '/api/v1/audit?target=mine');
  expect(audit.body.items[0]).toMatchObject({ action: 'workspace.create', actor: 'ada' });
});

test('a ticket for a stopped workspace is rejected with a hint', async () => {
  await call(ada, 'POST', '/api/v1/workspaces', { name: 'off', template: 'plain', start: false });
  expect(await call(ada, 'POST', '/api/v1/workspaces/off/tickets', { clientKey: 'x' })).toMatchObject({
    status: 409,
    body: { code: 'workspace-not-running', actions: [{ kind: 'start-workspace', workspace: 'ada/off' }] },
  });
});

test('reading the log waits for new lines', async () => {
  await call(ada, 'POST', '/api/v1/workspaces', { name: 'follow', template: 'plain' });
  const workspace = await until(
    () => show('follow'),
    (value) => stageOf(value) === 'agent',
  );
  const id = workspace.latestBuild.id;
  const seen = (await call(ada, 'GET', `/api/v1/builds/${id}/log`)).body.lines.at(-1).seq;
  const waiting = call(ada, 'GET', `/api/v1/builds/${id}/log?after=${seen}&wait=20`);
  await agentArrives(null);
  expect((await waiting).body).toMatchObject({
    done: false,
    lines: [expect.objectContaining({ text: 'agent connected' })],
  });
});
