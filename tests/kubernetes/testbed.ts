import { type ChildProcess, execFile, fork } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import net from 'node:net';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { type EmbeddedPostgres, startEmbedded } from '@cde/server/database/embedded.ts';
import { migrate } from '@cde/server/database/migrate.ts';
import { type Database, openDatabase } from '@cde/server/database/pool.ts';
import {
  openTestCluster,
  readKubeconfig,
  type TestCluster,
} from '@cde/server/providers/kubernetes/testing/cluster.ts';
import { addUser, type TestUser } from '@cde/server/testing.ts';
import { agentTestImage } from '../cluster/agent-image.ts';
import { images } from '../cluster/images.ts';
import { compileCache } from '../kit/compile-cache.ts';
import { freePort } from '../kit/free-port.ts';
import { patienceMs, until } from '../kit/until.ts';
import { smallRequests } from './requests.ts';

const program = fileURLToPath(new URL('replica.ts', import.meta.url));
/** Its start takes half the CPU time with this hook, which does not apply to modules that are imported along with it. */
const execArgv = [
  '--import',
  fileURLToPath(new URL('../../server/database/drizzle-imports.ts', import.meta.url)),
];
const run = promisify(execFile);

interface Reply {
  status: number;
  body: any;
}
export interface Replica {
  child: ChildProcess;
  url: string;
  /** The ids of the workspaces in which it hangs. */
  hung: ReadonlySet<string>;
}

/** A TCP proxy in front of the API server that can drop or stall connections. */
interface ApiProxy {
  /** A kubeconfig that uses the proxy. */
  kubeconfig: string;
  /** Closes all connections and rejects new ones. */
  disconnect(): void;
  /** How many connections were rejected so far. */
  rejected(): number;
  /** Open connections stop carrying data but stay open; new ones work. */
  stall(): void;
  restore(): void;
  close(): Promise<void>;
}

async function startApiProxy(): Promise<ApiProxy> {
  const text = readKubeconfig();
  const target = new URL(/server: (\S+)/.exec(text)![1]!);
  const pairs = new Set<{ socket: net.Socket; up: net.Socket; silent: boolean }>();
  let open = true;
  let rejected = 0;
  const server = net.createServer((socket) => {
    if (!open) {
      rejected++;
      return void socket.resetAndDestroy();
    }
    const up = net.connect(Number(target.port), target.hostname);
    const pair = { socket, up, silent: false };
    pairs.add(pair);
    const end = () => {
      pairs.delete(pair);
      socket.destroy();
      up.destroy();
    };
    for (const each of [socket, up]) each.on('error', () => {}).on('close', end);
    socket.on('data', (chunk) => pair.silent || up.write(chunk));
    up.on('data', (chunk) => pair.silent || socket.write(chunk));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as net.AddressInfo;
  return {
    // The certificate is for the API server's own name; an address cannot be named so.
    kubeconfig: text.replace(
      /server: \S+/,
      `server: https://127.0.0.1:${port}${net.isIP(target.hostname) ? '' : `\n    tls-server-name: ${target.hostname}`}`,
    ),
    disconnect() {
      open = false;
      for (const { socket } of pairs) socket.resetAndDestroy();
    },
    rejected: () => rejected,
    stall() {
      for (const pair of pairs) pair.silent = true;
    },
    restore() {
      open = true;
      for (const { socket, silent } of pairs) if (silent) socket.resetAndDestroy();
    },
    async close() {
      for (const { socket } of pairs) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}

/** Servers, a database and an owner on the test cluster; `close` removes everything. */
export async function makeTestbed(prefix: string) {
  const folder = await mkdtemp(join(tmpdir(), 'cde-kube-faults-'));
  await chmod(folder, 0o711);
  const embedded: EmbeddedPostgres = await startEmbedded(folder, { fsync: 'off' });
  const database: Database = openDatabase(embedded.url);
  await migrate(database.pool);
  const ada: TestUser = await addUser(database, 'ada', 'owner');
  const cluster: TestCluster = await openTestCluster();
  const apiProxy = await startApiProxy();
  await writeFile(join(folder, 'kubeconfig'), apiProxy.kubeconfig);
  const agentImage = await agentTestImage();
  const [node] = await cluster.list({ apiVersion: 'v1', kind: 'Node' });
  // Where pods reach this machine.
  const host =
    process.env.CDE_TEST_HOST ?? node!.status!.addresses!.find(({ type }) => type === 'InternalIP')!.address;
  const children = new Set<ChildProcess>();
  const unique = `${prefix}-${Date.now().toString(36)}`;
  let number = 0;

  async function start(extraEnv: Record<string, string> = {}): Promise<Replica> {
    const url = `http://${host}:${await freePort(host)}`;
    const child = fork(program, [], {
      execArgv,
      env: {
        ...process.env,
        ...compileCache,
        DATABASE_URL: embedded.url,
        CDE_DATA_DIR: folder,
        CDE_LISTEN: new URL(url).host,
        CDE_ACCESS_URL: url,
        CDE_REPLICA_URL: url,
        CDE_SECRET_KEY: 'the same secret for all replicas, long',
        CDE_CLUSTER: join(folder, 'kubeconfig'),
        CDE_AGENT_IMAGE: agentImage,
        CDE_LOCAL_PROVIDER: 'off',
        ...extraEnv,
      },
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    });
    children.add(child);
    child.once('exit', () => children.delete(child));
    const ended = once(child, 'exit').then(([code, signal]) => {
      throw new Error(`The replica ended with ${code ?? signal} before it was ready`);
    });
    const [{ ready }] = (await Promise.race([once(child, 'message'), ended])) as [{ ready: string }];
    ended.catch(() => {});
    const hung = new Set<string>();
    child.on('message', (message) => void hung.add((message as { hung: string }).hung));
    return { child, url: ready, hung };
  }
  async function kill({ child }: Replica): Promise<void> {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, 'exit');
    child.kill('SIGKILL');
    await gone;
  }
  async function request(
    replica: Replica,
    method: string,
    path: string,
    body?: unknown,
    token = ada.token,
  ): Promise<Reply> {
    const reply = await fetch(replica.url + path, {
      method,
      headers: {
        authorization: `Bearer ${token}`,
        ...(body !== undefined && { 'content-type': 'application/json' }),
      },
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });
    const text = await reply.text();
    return { status: reply.status, body: text === '' ? undefined : JSON.parse(text) };
  }
  const getWorkspace = async (replica: Replica, name: string) =>
    (await request(replica, 'GET', `/api/v1/workspaces/${name}`)).body;
  const hasEnded = (build: any) => ['succeeded', 'failed', 'cancelled'].includes(build?.status);
  /** Waits until the newest build of a workspace has ended; or the server says why there is none. */
  const waitForBuild = async (replica: Replica, name: string, forMs = patienceMs) => {
    const reply = await until(
      () => request(replica, 'GET', `/api/v1/workspaces/${name}`),
      // A busy server may answer 503.
      ({ status, body }) => status < 500 && (status !== 200 || hasEnded(body.latestBuild)),
      forMs,
    );
    return reply.body;
  };
  /** All lines of a build's log, as one text. */
  async function buildLog(replica: Replica, buildId: string): Promise<string> {
    const reply = await request(replica, 'GET', `/api/v1/builds/${buildId}/log`);
    return (reply.body.lines as { text: string }[]).map(({ text }) => text).join('\n');
  }
  /** Publishes the section as the template `name`; `home` and startup are the same in all. */
  async function publish(
    replica: Replica,
    name: string,
    section: Record<string, unknown> = {},
    token = ada.token,
    startup = 'echo run >> ~/starts',
  ): Promise<Reply> {
    const lines = Object.entries({
      image: images.debian,
      pullPolicy: 'IfNotPresent',
      memory: '256Mi',
      requests: smallRequests,
      ...section,
    })
      .map(([key, value]) => `  ${key}: ${JSON.stringify(value)}`)
      .join('\n');
    const text = `name: ${name}\nprovider: kubernetes\nhome: { size: 64Mi }\nstartup:\n  script: ${JSON.stringify(startup)}\nkubernetes:\n${lines}\n`;
    return request(replica, 'POST', '/api/v1/templates', { files: { 'template.yaml': text } }, token);
  }
  async function kubectl(...args: string[]): Promise<string> {
    const kubeconfig = process.env.CDE_TEST_KUBECONFIG || join(homedir(), '.cache/cde/cluster/kubeconfig');
    return (await run('kubectl', ['--kubeconfig', kubeconfig, ...args])).stdout;
  }
  /** Runs a command in a workspace's pod without the server. */
  const exec = (namespace: string, ...command: string[]): Promise<string> =>
    kubectl('-n', namespace, 'exec', 'workspace-0', '-c', 'workspace', '--', ...command);
  /** Waits until no job is due. */
  const waitForIdleQueue = () =>
    until(
      async () =>
        (
          await database.pool.query(
            'SELECT key, attempts, last_error FROM graphile_worker._private_jobs WHERE run_at <= now() AND attempts < max_attempts',
          )
        ).rows,
      (jobs) => jobs.length === 0,
    );

  return {
    ...{ folder, database, ada, cluster, apiProxy, agentImage, host, unique },
    ...{
      start,
      kill,
      request,
      getWorkspace,
      waitForBuild,
      buildLog,
      publish,
      kubectl,
      exec,
      waitForIdleQueue,
      hasEnded,
    },
    /** A workspace name that is unique on the cluster. */
    nextName: () => `${unique}-${++number}`,
    transitions: {
      start: (replica: Replica, name: string) =>
        request(replica, 'POST', `/api/v1/workspaces/${name}/start`, {}),
      update: (replica: Replica, name: string) =>
        request(replica, 'POST', `/api/v1/workspaces/${name}/update`, { force: true }),
      stop: (replica: Replica, name: string) =>
        request(replica, 'POST', `/api/v1/workspaces/${name}/stop`, {}),
      delete: (replica: Replica, name: string) => request(replica, 'DELETE', `/api/v1/workspaces/${name}`),
    },
    async killAll(): Promise<void> {
      for (const child of [...children]) await kill({ child } as Replica);
    },
    async close(): Promise<void> {
      for (const child of [...children]) await kill({ child } as Replica);
      // What is left belongs to workspaces of ours: found by their names.
      for (const namespace of await cluster.list({
        apiVersion: 'v1',
        kind: 'Namespace',
        labels: 'cde.dev/managed=true',
      }))
        if (namespace.metadata.name.startsWith(`cde-ada-${unique}`)) await cluster.removeObject(namespace);
      await cluster.discardVolumes('cde.dev/home', ({ metadata }) =>
        Boolean(metadata.labels?.['cde.dev/name']?.startsWith(unique)),
      );
      await apiProxy.close();
      await database.close();
      await embedded.stop();
      await rm(folder, { recursive: true, force: true });
    },
  };
}
export type Testbed = Awaited<ReturnType<typeof makeTestbed>>;
