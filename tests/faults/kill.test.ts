import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type EmbeddedPostgres, startEmbedded } from '@cde/server/database/embedded.ts';
import { migrate } from '@cde/server/database/migrate.ts';
import { type Database, openDatabase } from '@cde/server/database/pool.ts';
import { addUser, type TestUser } from '@cde/server/testing.ts';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { agentPids } from '../kit/api.ts';
import { compileCache } from '../kit/compile-cache.ts';
import { endLeftovers } from '../kit/machine.ts';
import { until } from '../kit/until.ts';

/** Two real replicas on one database and one machine; one is killed at each point of each transition. */
const template = `name: plain
provider: local
startup:
  script: |
    echo run >> ~/starts
    [ ! -e ~/wait ] || while [ -e ~/wait ]; do sleep 0.05; done
`;
const program = fileURLToPath(new URL('replica.ts', import.meta.url));
/** Its start takes half the CPU time with this hook, which does not apply to modules that are imported along with it. */
const execArgv = [
  '--import',
  fileURLToPath(new URL('../../server/database/drizzle-imports.ts', import.meta.url)),
];

interface Replica {
  child: ChildProcess;
  url: string;
  /** The workspaces in a step of which it hangs. */
  hung: ReadonlySet<string>;
}

let folder: string;
let embedded: EmbeddedPostgres;
let database: Database;
let ada: TestUser;
/** The replica that outlives the others. */
let heir: Replica;
const children = new Set<ChildProcess>();
let number = 0;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cde-faults-'));
  await chmod(folder, 0o711);
  embedded = await startEmbedded(folder, { fsync: 'off' });
  database = openDatabase(embedded.url);
  await migrate(database.pool);
  ada = await addUser(database, 'ada', 'owner');
  heir = await start();
  const published = await call(heir, 'POST', '/api/v1/templates', {
    files: { 'template.yaml': template },
  });
  expect(published.status).toBe(201);
}, 240_000);
afterAll(async () => {
  for (const child of children) child.kill('SIGKILL');
  await database?.close();
  await embedded?.stop();
  await endLeftovers(folder);
  await rm(folder, { recursive: true, force: true });
});
/** Leaves the heir alone with its agents, or a new one if the test failed and may have left it in any state. */
afterEach(async ({ task }) => {
  heir.child.kill('SIGCONT');
  for (const child of [...children])
    if (child !== heir.child || task.result?.state === 'fail') {
      child.kill('SIGKILL');
      await once(child, 'exit');
    }
  if (!children.has(heir.child)) heir = await start();
});

/** `hangAt`: the points of steps at which it hangs, by workspace. */
async function start(hangAt: Record<string, string> = {}): Promise<Replica> {
  const child = fork(program, [], {
    execArgv,
    env: {
      ...process.env,
      ...compileCache,
      DATABASE_URL: embedded.url,
      CDE_DATA_DIR: folder,
      CDE_LISTEN: '127.0.0.1:0',
      CDE_SECRET_KEY: 'the same secret for all replicas, long',
      HANG_AT: JSON.stringify(hangAt),
      // A step that hangs occupies a worker.
      CDE_CONCURRENCY: String(10 + Object.keys(hangAt).length),
    },
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  children.add(child);
  child.once('exit', () => children.delete(child));
  const hung = new Set<string>();
  child.on('message', (message: { hung?: string }) => message.hung && hung.add(message.hung));
  const [{ ready }] = (await once(child, 'message')) as [{ ready: string }];
  return { child, url: ready, hung };
}
async function kill(replica: Replica): Promise<void> {
  const gone = once(replica.child, 'exit');
  replica.child.kill('SIGKILL');
  await gone;
}
async function call(
  replica: Replica,
  method: string,
  path: string,
  body?: unknown,
): Promise<{ status: number; body: any }> {
  const reply = await fetch(replica.url + path, {
    method,
    headers: {
      authorization: `Bearer ${ada.token}`,
      ...(body !== undefined && { 'content-type': 'application/json' }),
    },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  });
  const text = await reply.text();
  return { status: reply.status, body: text === '' ? undefined : JSON.parse(text) };
}
const show = async (replica: Replica, name: string) =>
  (await call(replica, 'GET', `/api/v1/workspaces/${name}`)).body;
const settled = (replica: Replica, name: string) =>
  until(
    () => show(replica, name),
    (workspace) =>
      workspace.code !== undefined ||
      ['succeeded', 'failed', 'cancelled'].includes(workspace.latestBuild?.status),
  );
const requests: Record<string, (replica: Replica, name: string) => Promise<{ status: number; body: any }>> = {
  start: (replica, name) => call(replica, 'POST', `/api/v1/workspaces/${name}/start`, {}),
  update: (replica, name) => call(replica, 'POST', `/api/v1/workspaces/${name}/update`, { force: true }),
  stop: (replica, name) => call(replica, 'POST', `/api/v1/workspaces/${name}/stop`, {}),
  delete: (replica, name) => call(replica, 'DELETE', `/api/v1/workspaces/${name}`),
};

const points = [
  ['start', 'before start', 'running'],
  ['start', 'after start', 'running'],
  ['start', 'observe', 'running'],
  ['update', 'before start', 'running'],
  ['update', 'after start', 'running'],
  ['stop', 'before stop', 'stopped'],
  ['stop', 'after stop', 'stopped'],
  ['delete', 'before remove', 'gone'],
  ['delete', 'after remove', 'gone'],
] as const;

/**
 * Kills one replica in transitions of several workspaces at once, in each at another point. Returns the workspaces in the
 * order of `points`.
 */
async function killAtEachPoint(): Promise<{ name: string; id: string }[]> {
  const subjects = await Promise.all(
    points.map(async ([transition, point]) => {
      const name = `w${++number}`;
      const isStarted = transition !== 'start';
      const created = await call(heir, 'POST', '/api/v1/workspaces', {
        name,
        template: 'plain',
        start: isStarted,
      });
      if (isStarted) expect(await settled(heir, name)).toMatchObject({ status: 'running' });
      return { name, id: created.body.id as string, transition, point };
    }),
  );
  const victim = await start(Object.fromEntries(subjects.map(({ id, point }) => [id, point])));
  // A new replica observes everything that runs; frozen during that, the heir would keep its steps.
  await until(
    async () =>
      (
        await database.pool.query(
          'SELECT key, locked_by, locked_at, attempts, last_error FROM graphile_worker._private_jobs WHERE run_at <= now() AND attempts < max_attempts',
        )
      ).rows,
    (jobs) => jobs.length === 0,
  );
  // The heir is frozen, so that the victim takes the steps.
  heir.child.kill('SIGSTOP');
  for (const { name, transition } of subjects)
    expect((await requests[transition]!(victim, name)).status).toBe(202);
  await until(
    () => victim.hung,
    (hung) => hung.size === subjects.length,
  );
  heir.child.kill('SIGCONT');
  await kill(victim);
  return subjects;
}
let killed: ReturnType<typeof killAtEachPoint> | undefined;

test.each(
  points.map((point, index) => [...point, index] as const),
)('%s, killed at "%s": the other replica brings it to %s', async (transition, _point, end, index) => {
  killed ??= killAtEachPoint().catch((error) => {
    killed = undefined;
    throw error;
  });
  const { name, id } = (await killed)[index]!;
  if (end === 'gone') {
    await until(
      () => call(heir, 'GET', `/api/v1/workspaces/${name}`),
      (reply) => reply.status === 404,
    );
    expect(await agentPids(id)).toEqual([]);
    const retained = await readdir(join(folder, 'homes/.set-aside'));
    expect(retained.filter((entry) => entry.startsWith(id))).toHaveLength(1);
    return;
  }
  expect(await settled(heir, name)).toMatchObject({
    status: end,
    latestBuild: { status: 'succeeded', transition },
  });
  expect(await agentPids(id)).toHaveLength(end === 'running' ? 1 : 0);
});

test('killed while the startup script runs: the script runs once, and its end is recorded', async () => {
  const name = `w${++number}`;
  const victim = await start();
  const { id } = (await call(victim, 'POST', '/api/v1/workspaces', { name, template: 'plain' })).body;
  await settled(victim, name);
  const home = join(folder, 'homes', id);
  await writeFile(join(home, 'wait'), '');
  await call(victim, 'POST', `/api/v1/workspaces/${name}/restart`, {});
  await until(
    () => show(heir, name),
    (workspace) =>
      workspace.latestBuild.stages.at(-1).name === 'startup' && workspace.latestBuild.number === 2,
  );
  await kill(victim);
  await rm(join(home, 'wait'));
  expect(await settled(heir, name)).toMatchObject({
    status: 'running',
    latestBuild: { number: 2, status: 'succeeded' },
  });
  expect(await readFile(join(home, 'starts'), 'utf8')).toBe('run\nrun\n');
});

test('killed at twelve moments of a restart, spread over its length: always one agent, always the home', async () => {
  const name = `w${++number}`;
  const { id } = (await call(heir, 'POST', '/api/v1/workspaces', { name, template: 'plain' })).body;
  await settled(heir, name);
  let next = start();
  for (let round = 0; round < 12; round++) {
    const victim = await next;
    // While the disk is busy, the database is slow, and the server says so.
    const restarted = await until(
      () => call(victim, 'POST', `/api/v1/workspaces/${name}/restart`, {}),
      ({ status }) => status !== 503,
    );
    expect(restarted).toMatchObject({ status: 202 });
    await new Promise((resolve) => setTimeout(resolve, round * 60));
    await kill(victim);
    if (round < 11) next = start();
    expect(await settled(heir, name)).toMatchObject({
      status: 'running',
      latestBuild: { number: round + 2, status: 'succeeded' },
    });
    expect(await agentPids(id)).toHaveLength(1);
  }
  const starts = (await readFile(join(folder, 'homes', id, 'starts'), 'utf8')).trim().split('\n');
  expect(starts.length).toBeGreaterThanOrEqual(13);
});

test('both replicas take part in the work', async () => {
  const second = await start();
  const names = Array.from({ length: 6 }, () => `w${++number}`);
  for (const name of names) await call(heir, 'POST', '/api/v1/workspaces', { name, template: 'plain' });
  for (const name of names) expect(await settled(second, name)).toMatchObject({ status: 'running' });
  const { rows } = await database.pool.query<{ count: number }>(
    'SELECT count(*)::int AS count FROM replicas WHERE cardinality(worker_ids) > 0',
  );
  expect(rows[0]!.count).toBe(2);
});
