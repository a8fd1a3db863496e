/**
 * A thousand workspaces on one cluster, on simulated nodes (kwok): create all, one idle minute, a server restart, all
 * agents lost at once and the sweep after it, a rolling stop, delete all. Prints for each phase the time, API calls by
 * verb, watches, and the server's memory and event loop. Baseline: plain client calls with the same manifests, in the
 * same run. Two processes run the agent's own code for all pods (thousand/agents.ts).
 * Needs a cluster (`npm run kube:up`, or CDE_TEST_KUBECONFIG).
 * Usage: node bench/kubernetes-thousand.ts [COUNT] [--profile FOLDER] [--short]
 * --short: only create and stop.
 */
import { homedir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { readKubeconfig } from '@cde/server/providers/kubernetes/testing/cluster.ts';
import { startKwok } from '../tests/cluster/kwok.ts';
import { freePort } from '../tests/kit/free-port.ts';
import { until } from '../tests/kit/until.ts';
import { makeTestbed } from '../tests/kubernetes/testbed.ts';
import { loopDelay } from './thousand/meter.ts';
import type { Durations } from './thousand/plain.ts';
import { end, type MeteredServer, startAgents, startPlain, startServer } from './thousand/processes.ts';
import { callsOf, type Phase, print, quantile } from './thousand/report.ts';
import { templateOf } from './thousand/template.ts';

const { positionals, values: flags } = parseArgs({
  allowPositionals: true,
  options: { profile: { type: 'string' }, short: { type: 'boolean', default: false } },
});
const count = Number(positionals[0] ?? 1000);
/** The server's default number of concurrent steps, also used by the baseline. */
const concurrency = 10;
const sample = Math.min(count, 150);
const podsPerNode = 110;
/** Workspaces that stop at the same time in the rolling stop. */
const rolling = 50;
const timeoutMs = 60_000 + count * 1_500;

const kubeconfig = process.env.CDE_TEST_KUBECONFIG || join(homedir(), '.cache/cde/cluster/kubeconfig');
const api = new URL(/server: (\S+)/.exec(readKubeconfig())![1]!).host;

const testbed = await makeTestbed('scale');
const { unique, database } = testbed;
const prefix = `cde-ada-${unique}`;
const nodes = Math.ceil((count + 2 * sample) / podsPerNode) + 1;
console.log(
  `${count} workspaces on ${nodes} kwok nodes, baseline of ${sample} twice, ${concurrency} at a time`,
);
const kwok = await startKwok(kubeconfig, unique, nodes);
const plain = startPlain(kubeconfig, unique, concurrency);
const url = `http://${testbed.host}:${await freePort()}`;
const environment = {
  DATABASE_URL: database.url,
  CDE_DATA_DIR: testbed.folder,
  CDE_LISTEN: new URL(url).host,
  CDE_ACCESS_URL: url,
  CDE_SECRET_KEY: 'the same secret for all replicas, long',
  CDE_CLUSTER: kubeconfig,
  CDE_AGENT_IMAGE: 'nothing.runs/here:1',
  CDE_LOCAL_PROVIDER: 'off',
  CDE_LOG_LEVEL: 'error',
};
let server: MeteredServer = await startServer(environment, api);
let agents = startAgents(kubeconfig, prefix);
const control = loopDelay();

const names = Array.from({ length: count }, (_, index) => `${unique}-${index}`);
let refused = 0;
async function call(method: string, path: string, body?: object): Promise<void> {
  const reply = await fetch(url + path, {
    method,
    headers: {
      authorization: `Bearer ${testbed.ada.token}`,
      ...(body && { 'content-type': 'application/json' }),
    },
    ...(body && { body: JSON.stringify(body) }),
  });
  const text = await reply.text();
  if (reply.status === 503) {
    // The server is busy; wait as long as it says.
    refused++;
    await new Promise((resolve) => setTimeout(resolve, Number(reply.headers.get('retry-after')) * 1_000));
    return call(method, path, body);
  }
  if (!reply.ok) throw new Error(`${method} ${path}: ${reply.status} ${text}`);
}
async function each(work: (name: string) => Promise<unknown>, parallel: number): Promise<void> {
  const left = [...names];
  await Promise.all(
    Array.from({ length: parallel }, async () => {
      for (let name = left.shift(); name !== undefined; name = left.shift()) await work(name);
    }),
  );
}

const number = async (text: string): Promise<number> =>
  Number((await database.pool.query<{ n: string }>(text)).rows[0]!.n);
const inStatus = (status: string) =>
  number(`SELECT count(*) AS n FROM workspaces WHERE status = '${status}'`);
/** Transactions in this database: the server's and the benchmark's few. */
const transactions = () =>
  number('SELECT xact_commit AS n FROM pg_stat_database WHERE datname = current_database()');
/** Steps that are due or running. */
const dueJobs = () =>
  number(
    'SELECT count(*) AS n FROM graphile_worker._private_jobs WHERE (run_at <= now() OR locked_at IS NOT NULL) AND attempts < max_attempts',
  );
async function reach(what: string, read: () => number | Promise<number>, goal: number): Promise<void> {
  let last = -1;
  await until(
    async () => {
      await new Promise((resolve) => setTimeout(resolve, 200));
      last = await read();
      return last;
    },
    (value) => value === goal,
    timeoutMs,
  ).catch(async () => {
    const { rows } = await database.pool.query(
      `SELECT w.status, w.reason, b.transition, b.status AS build, b.error->>'code' AS code, count(*)::int, min(w.name) AS one
         FROM workspaces w LEFT JOIN builds b ON b.id = w.current_build_id GROUP BY 1, 2, 3, 4, 5 ORDER BY 6 DESC LIMIT 20`,
    );
    console.table(rows);
    throw new Error(`${what}: reached ${last} of ${goal}`);
  });
}

async function phase(
  name: string,
  work: (mark: (mark: string, at?: number) => void) => Promise<string[] | undefined>,
): Promise<Phase> {
  await server.begin(flags.profile && join(flags.profile, `${name.replaceAll(' ', '-')}.cpuprofile`));
  control.reset();
  refused = 0;
  const before = await transactions();
  const began = Date.now();
  const marks: Phase['marks'] = {};
  const counts = await work((mark, at = Date.now()) => {
    marks[mark] = at - began;
  });
  const more = [
    ...(counts ?? []),
    ...(refused > 0 ? [`retried          ${refused} times, because the server was busy`] : []),
  ];
  const idleLoopP99 = control.read().p99;
  const done: Phase = {
    ...{ name, count, marks, idleLoopP99 },
    measured: await server.measured(),
    transactions: (await transactions()) - before,
    more,
  };
  print(done);
  return done;
}

/** The durations of the builds of a transition, and of their stages. */
async function builds(transition: string): Promise<string[]> {
  const { rows } = await database.pool.query<{ ms: number; stages: { name: string; ms: number }[] }>(
    `SELECT extract(epoch FROM finished_at - created_at) * 1000 AS ms,
            (SELECT json_agg(json_build_object('name', s->>'name', 'ms', extract(epoch FROM (s->>'finishedAt')::timestamptz - (s->>'startedAt')::timestamptz) * 1000))
               FROM jsonb_array_elements(stages::jsonb) AS s) AS stages
       FROM builds WHERE transition = $1 AND status = 'succeeded'`,
    [transition],
  );
  const spread = (ms: number[]) =>
    `${(quantile(ms, 0.5) / 1000).toFixed(2)}/${(quantile(ms, 0.99) / 1000).toFixed(2)}`;
  const stageNames = [...new Set(rows.flatMap(({ stages }) => stages.map(({ name }) => name)))];
  const spreads = stageNames.map(
    (name) =>
      `${name} ${spread(rows.flatMap(({ stages }) => stages.filter((s) => s.name === name).map(({ ms }) => ms)))}`,
  );
  return [`each build       p50/p99 ${spread(rows.map(({ ms }) => Number(ms)))} s: ${spreads.join(', ')}`];
}

async function run(): Promise<void> {
  await call('POST', '/api/v1/templates', { files: { 'template.yaml': templateOf(unique, unique) } });
  const plainCreated: Durations[] = [await plain.create(sample)];

  const created = await phase('creating them all', async (mark) => {
    await each((name) => call('POST', '/api/v1/workspaces', { name, template: unique }), 20);
    mark('asked for');
    await reach('pods that run', () => agents.counts().running, count);
    mark('pods run', agents.counts().runningAt);
    await reach('workspaces that run', () => inStatus('running'), count);
    mark('ready');
    const { rows } = await database.pool.query<{ at: Date }>(
      "SELECT max(at) AS at FROM build_logs WHERE text LIKE 'applied %'",
    );
    mark('the last was applied', rows[0]!.at.getTime());
    return builds('start');
  });

  plainCreated.push(await plain.create(sample));
  const plainStopped = await plain.stop();
  if (!flags.short) await whileTheyRun();
  const stopped = await stopAll();
  await plain.remove();
  if (!flags.short) await deleteAll();

  const per = (tooks: Durations[], key: 'calledMs' | 'wallMs' | 'cpuMs' | 'calls') =>
    tooks.reduce((total, took) => total + took[key], 0) /
    tooks.reduce((total, took) => total + took.count, 0);
  const ratio = (ours: number, theirs: number) =>
    `${(ours / count).toFixed(0).padStart(6)} ms ${theirs.toFixed(0).padStart(6)} ms ${(ours / count / theirs).toFixed(2).padStart(6)}`;
  console.log(`
ratios, for each workspace         ours     plain  ours÷plain
  create: time to all applied ${ratio(created.marks['the last was applied']!, per(plainCreated, 'calledMs'))}
  create: time to pod Running ${ratio(created.marks['pods run']!, per(plainCreated, 'wallMs'))}
  create: time to ready       ${ratio(created.marks.ready!, per(plainCreated, 'wallMs'))}
  create: CPU of the client   ${ratio(created.measured.cpuMs, per(plainCreated, 'cpuMs'))}
  stop: time                  ${ratio(stopped.marks.stopped!, per([plainStopped], 'wallMs'))}
  the two baselines of create: ${plainCreated.map((took) => `${(took.calledMs / took.count).toFixed(0)} ms to applied, ${(took.wallMs / took.count).toFixed(0)} to Running`).join(' and ')}
  API calls to start one: ${(callsOf(created.measured) / count).toFixed(2)} (plain ${per(plainCreated, 'calls').toFixed(2)}); aim: at most 12`);
}

/** Measures an idle minute, a restart of the server, and the loss of all agents. */
async function whileTheyRun(): Promise<void> {
  await reach('agents', () => agents.counts().connected, count);
  await phase('a minute of nothing', async (mark) => {
    await new Promise((resolve) => setTimeout(resolve, 65_000));
    mark('waited');
    return undefined;
  });

  const old = server;
  control.reset();
  const restarting = Date.now();
  await end(old.child);
  const ended = Date.now();
  server = await startServer(environment, api);
  // The new server has been measured since its start, so this includes what it did before it was ready.
  const ready = Date.now();
  await reach('due steps', dueJobs, 0);
  const looked = Date.now();
  await reach('agents', () => agents.counts().connected, count);
  await reach('due steps', dueJobs, 0);
  const measured = await server.measured();
  print({
    name: 'a restart of the server',
    count,
    marks: {
      'the old one ended': ended - restarting,
      'the new one is ready': ready - restarting,
      'has looked at all': looked - restarting,
      'all agents are back': agents.counts().connectedAt - restarting,
    },
    measured,
    idleLoopP99: control.read().p99,
    transactions: 0,
  });
  if ((await inStatus('running')) !== count) throw new Error('a restart changed the status of workspaces');

  await phase('all agents lost and the sweep after them', async (mark) => {
    await agents.end();
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    await reach('due steps', dueJobs, 0);
    mark('their loss was looked at');
    // As if the agents had missed three reports. The sweep runs every minute.
    await database.pool.query("UPDATE workspaces SET agent_seen_at = now() - interval '10 minutes'");
    const silent = Date.now();
    let first = 0;
    let last = 0;
    while (Date.now() < silent + 65_000 || last > Date.now() - 1_000) {
      if ((await dueJobs()) > 0) {
        last = Date.now();
        first ||= last;
      }
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    mark('the sweep woke the first', first);
    mark('and had the last looked at', last);
    return undefined;
  });
  if ((await inStatus('running')) !== count) throw new Error('a sweep changed the status of workspaces');
  agents = startAgents(kubeconfig, prefix);
  await reach('agents', () => agents.counts().connected, count);
}

/** Stops all workspaces, as an administrator might for the night. */
function stopAll(): Promise<Phase> {
  return phase(`a rolling stop, ${rolling} at a time`, async (mark) => {
    const waiting = new Map<string, () => void>();
    const look = setInterval(async () => {
      const { rows } = await database.pool.query<{ name: string }>(
        "SELECT name FROM workspaces WHERE status IN ('stopped', 'failed') AND name = ANY($1)",
        [[...waiting.keys()]],
      );
      for (const { name } of rows) waiting.get(name)?.();
    }, 250);
    await each(async (name) => {
      const done = new Promise<void>((resolve) => waiting.set(name, resolve));
      await call('POST', `/api/v1/workspaces/${name}/stop`, {});
      await done;
      waiting.delete(name);
    }, rolling).finally(() => clearInterval(look));
    await reach('workspaces that are stopped', () => inStatus('stopped'), count);
    mark('stopped');
    return builds('stop');
  });
}

async function deleteAll(): Promise<void> {
  await phase('deleting them all', async (mark) => {
    await each((name) => call('DELETE', `/api/v1/workspaces/${name}?home=discard`), 20);
    mark('asked for');
    await reach('workspaces that are deleted', () => inStatus('deleted'), count);
    mark('deleted');
    return builds('delete');
  });
}

/** Deletes all namespaces before kwok stops, because pods without kwok are never deleted. */
async function cleanUp(): Promise<void> {
  await plain.remove().catch(() => {});
  await plain.end();
  await agents.end();
  await end(server.child);
  const left = async () => {
    const all = await testbed.cluster.list({
      apiVersion: 'v1',
      kind: 'Namespace',
      labels: 'cde.dev/managed=true',
    });
    return all.filter(({ metadata: { name } }) => name.startsWith(prefix) || name.startsWith(unique));
  };
  for (const namespace of await left())
    if (!namespace.metadata.deletionTimestamp) await testbed.cluster.removeObject(namespace);
  await until(
    async () => {
      await new Promise((resolve) => setTimeout(resolve, 2_000));
      return (await left()).length;
    },
    (length) => length === 0,
    10 * 60_000,
  ).finally(async () => {
    await kwok.stop();
    await testbed.close();
  });
}

// Clean up after an interrupt too, because others use the same cluster.
const interrupted = new Promise<never>((_, reject) => {
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.once(signal, () => reject(new Error(`interrupted by ${signal}`)));
});
let failure: unknown;
try {
  await Promise.race([run(), interrupted]);
} catch (error) {
  failure = error;
  console.error(error);
} finally {
  const cleaning = Date.now();
  await cleanUp();
  console.log(`\ncleaned up in ${((Date.now() - cleaning) / 1000).toFixed(0)} s`);
}
process.exit(failure === undefined ? 0 : 1);
