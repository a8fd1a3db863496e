import { once } from 'node:events';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, onTestFailed, test } from 'vitest';
import { type Api, agentPids, makeApi } from '../kit/api.ts';
import { type Machine, makeMachine, type Running } from '../kit/machine.ts';
import { makeDatabase, type OwnDatabase, postgresProcesses } from '../kit/postgres.ts';
import { until } from '../kit/until.ts';

/** The database becomes unreachable, at startup and later; the port is taken. */

/** As long as a failover or a restart of a managed PostgreSQL takes. */
const outageMs = 20_000;
/** How long commands have no database. They retry for 30 s, and a busy machine may need most of that to recover. */
const askingMs = 3_000;
/** It takes a few seconds; a busy machine may need this long. */
const soonMs = 60_000;

const templates: Record<string, string> = {
  plain: 'name: plain\nprovider: local\nstartup:\n  script: echo run >> ~/starts\n',
  // Its script ends while the database is unreachable.
  slow: 'name: slow\nprovider: local\nstartup:\n  script: |\n    echo run >> ~/starts\n    sleep 6\n',
};

let attempts = 0;
const isRunning = (server?: Running) =>
  server?.process.exitCode === null && server.process.signalCode === null;
/** Kills a server that an earlier attempt left running. */
async function end(server?: Running) {
  if (!server || !isRunning(server)) return;
  server.process.kill('SIGINT');
  await server.ended;
}

describe('an external PostgreSQL', () => {
  let machine: Machine;
  let database: OwnDatabase;
  let server: Running;
  let url: string;
  let api: Awaited<ReturnType<typeof makeApi>>;
  beforeAll(async () => {
    machine = await makeMachine();
    await mkdir(machine.env.HOME!, { recursive: true });
    database = await makeDatabase(join(machine.folder, 'database'));
    machine.env.DATABASE_URL = database.url;
    url = `http://${machine.env.CDE_LISTEN}`;
  });
  afterAll(async () => {
    await database?.thaw();
    await machine?.remove();
  });
  test('unreachable at startup for too long: the server reports it and exits', async () => {
    await database.stop();
    const ran = await machine.begin(['server', 'start'], { CDE_DATABASE_WAIT: '1' }).ended;
    expect(ran.code).toBe(1);
    expect(ran.stdout).toMatch(/does not answer yet .*trying for 1 s/);
    expect(ran.stderr).toMatch(
      /The database does not answer: .+\nCheck DATABASE_URL, that PostgreSQL is running/,
    );
    expect(ran.stderr).not.toMatch(/^\s+at /m);
  });

  test('unreachable at startup but back in time: the server starts by itself', async () => {
    await end(server);
    await database.stop();
    // A busy machine may need longer to start PostgreSQL.
    server = machine.begin(['server', 'start'], { CDE_DATABASE_WAIT: '300' });
    await server.says(/does not answer yet .*trying for 300 s/);
    await database.start();
    await server.says('Ctrl-C stops');
    api = await makeApi(machine, url);
    for (const [name, text] of Object.entries(templates)) {
      await mkdir(join(machine.folder, name), { recursive: true });
      await writeFile(join(machine.folder, name, 'template.yaml'), text);
      expect(await machine.cde('template', 'push', name)).toMatchObject({ code: 0 });
    }
  });

  test.each<[string, () => Promise<void>, () => Promise<void>]>([
    ['killed', () => database.kill(), () => database.start()],
    ['frozen', () => database.freeze(), () => database.thaw()],
  ])('unreachable (%s) for 20 s while workspaces start: everything recovers by itself', async (how, away, back) => {
    onTestFailed(() => console.log(server.output().slice(-6_000)));
    attempts += 1;
    const [lateName, earlyName, afterName] = ['late', 'early', 'after'].map(
      (name) => `${name}-${how}-${attempts}`,
    ) as [string, string, string];
    // After a failed attempt.
    onTestFailed(back);
    const session = machine.begin([
      'ssh',
      'hello',
      '--',
      'for i in $(seq 1 60); do echo tick $i; sleep 0.5; done; echo over',
    ]);
    await session.says('tick 2');
    const events = await listen(url, api.token);
    const show = async (name: string) => (await api('GET', `/api/v1/workspaces/${name}`)).body;

    const late = machine.begin(['create', lateName, '--template', 'slow']);
    await until(
      () => show(lateName),
      (workspace) => workspace.latestBuild?.stages.at(-1).name === 'startup',
    );
    const early = machine.begin(['create', earlyName, '--template', 'plain']);
    await until(
      () => show(earlyName),
      (workspace) => workspace.id !== undefined,
    );
    await away();
    const gone = performance.now();

    do {
      const [listed, alive, ready] = await Promise.all([
        api('GET', '/api/v1/workspaces'),
        api('GET', '/healthz'),
        api('GET', '/readyz'),
      ]);
      expect(listed).toMatchObject({
        status: 503,
        body: { code: 'database-unavailable', message: expect.any(String), hint: expect.any(String) },
      });
      expect(Number(listed.headers.get('retry-after'))).toBeGreaterThan(0);
      expect(listed.ms).toBeLessThan(soonMs);
      expect(alive).toMatchObject({ status: 200 });
      expect(alive.ms).toBeLessThan(soonMs);
      expect(ready).toMatchObject({ status: 503 });
      await wait(500);
    } while (performance.now() - gone < outageMs);
    // A command that only reads waits until the outage is over.
    const asking = machine.begin(['list']);
    await wait(askingMs);
    await back();
    const recoveredAt = performance.now();

    await until(
      () => api('GET', '/readyz'),
      (reply) => reply.status === 200,
    );
    expect(performance.now() - recoveredAt).toBeLessThan(soonMs);
    expect(await asking.ended).toMatchObject({ code: 0, stdout: expect.stringContaining('hello') });
    for (const creating of [late, early])
      expect(await creating.ended).toMatchObject({ code: 0, stdout: expect.stringContaining('is running') });
    expect(performance.now() - recoveredAt).toBeLessThan(2 * soonMs);
    for (const name of [lateName, earlyName]) {
      const workspace = await show(name);
      expect(workspace).toMatchObject({ status: 'running', latestBuild: { number: 1, status: 'succeeded' } });
      expect(await agentPids(workspace.id)).toHaveLength(1);
      const starts = join(machine.env.CDE_DATA_DIR!, 'homes', workspace.id, 'starts');
      expect(await readFile(starts, 'utf8')).toBe('run\n');
    }

    // The open session was not affected.
    const ran = await session.ended;
    expect(ran).toMatchObject({ code: 0, stderr: '' });
    const ticks = Array.from({ length: 60 }, (_, index) => `tick ${index + 1}`);
    expect(ran.stdout.trim().split('\n')).toEqual([...ticks, 'over']);

    // Watchers get later changes. If their connection broke, they are also told that they may have missed some.
    await until(
      async () => events.heard,
      (heard) =>
        heard.some(
          (message) => message.workspace?.name === earlyName && message.workspace.status === 'running',
        ),
    );
    if (how === 'killed') expect(events.heard.map((message) => message.type)).toContain('resync');
    events.close();

    // The replica is registered once, and works.
    expect((await machine.cde('create', afterName, '--template', 'plain')).code).toBe(0);
    const client = new pg.Client({ connectionString: database.url });
    await client.connect();
    const { rows } = await client.query('SELECT cardinality(worker_ids) AS workers FROM replicas');
    await client.end();
    expect(rows).toEqual([{ workers: 1 }]);
    expect(server.process.exitCode).toBeNull();
  });
});

describe('the embedded PostgreSQL', () => {
  let machine: Machine;
  let server: Running;
  let data: string;
  let api: Api;
  beforeAll(async () => {
    machine = await makeMachine();
    await mkdir(machine.env.HOME!, { recursive: true });
    data = join(machine.env.CDE_DATA_DIR!, 'postgres', 'data');
  });
  afterAll(() => machine?.remove());

  test('a port in use is named in the error, and the PostgreSQL that was started is stopped again', async () => {
    await end(server);
    const [host, port] = machine.env.CDE_LISTEN!.split(':');
    const other = createServer().listen(Number(port), host);
    await once(other, 'listening');
    const ran = await machine.cde('server', 'start');
    other.close();
    expect(ran.code).toBe(1);
    expect(ran.stderr).toContain(`Port ${port} on ${host} is in use.`);
    expect(ran.stderr).toContain('CDE_LISTEN=');
    expect(await postgresProcesses(data)).toEqual([]);
    server = machine.begin(['server', 'start']);
    await server.says('Ctrl-C stops');
  });

  test('a second server on the same data directory and port leaves the first and its PostgreSQL alone', async () => {
    const before = await postgresProcesses(data);
    const ran = await machine.cde('server', 'start');
    expect(ran).toMatchObject({ code: 1, stderr: expect.stringContaining('is in use') });
    expect((await postgresProcesses(data))[0]).toBe(before[0]);
    expect(await machine.cde('list')).toMatchObject({ code: 0, stdout: expect.stringContaining('hello') });
  });

  test('killed, it is started again by the server', async () => {
    if (!isRunning(server)) {
      server = machine.begin(['server', 'start']);
      await server.says('Ctrl-C stops');
    }
    api = await makeApi(machine, `http://${machine.env.CDE_LISTEN}`);
    const [postmaster] = await postgresProcesses(data);
    process.kill(postmaster!, 'SIGKILL');
    await until(
      () => postgresProcesses(data),
      (pids) => pids.length > 0 && pids[0] !== postmaster,
    );
    await until(
      () => api('GET', '/api/v1/workspaces'),
      (reply) => reply.status === 200,
    );
    expect(server.output()).toMatch(/the embedded PostgreSQL exited.*restarting it/);
    expect(await machine.cde('restart', 'hello')).toMatchObject({ code: 0 });
    server.process.kill('SIGINT');
    expect(await server.ended).toMatchObject({ code: 0 });
    expect(await postgresProcesses(data)).toEqual([]);
  });
});

/** Watches all workspaces, as the dashboard does. */
async function listen(url: string, token: string) {
  const headers = { authorization: `Bearer ${token}` };
  const options = { headers } as unknown as string[];
  const socket = new WebSocket(`${url.replace('http', 'ws')}/api/v1/events`, options);
  const heard: { type: string; workspace?: { name: string; status: string } }[] = [];
  socket.addEventListener('message', ({ data }) => heard.push(JSON.parse(String(data))));
  await once(socket, 'open');
  socket.send(JSON.stringify({ type: 'subscribe', topic: 'workspaces' }));
  await until(
    async () => heard,
    (all) => all.some(({ type }) => type === 'subscribed'),
  );
  return { heard, close: () => socket.close() };
}
