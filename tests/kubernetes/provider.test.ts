import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Connection, WatchedKind } from '@cde/server/providers/kubernetes/api/connections.ts';
import type { Kube } from '@cde/server/providers/kubernetes/api/models.ts';
import { makeKubernetesProvider } from '@cde/server/providers/kubernetes/provider.ts';
import { dryRunTemplate } from '@cde/server/providers/kubernetes/steps/dry-run.ts';
import { quiet, testConnections } from '@cde/server/providers/kubernetes/testing.ts';
import type { Provider, ProviderState, StepResult, WorkspaceSpec } from '@cde/server/providers/provider.ts';
import { parseTemplate } from '@cde/server/templates/parse.ts';
import { renderTemplate } from '@cde/server/templates/render.ts';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { agentTestImage } from '../cluster/agent-image.ts';
import { images } from '../cluster/images.ts';
import { until } from '../kit/until.ts';
import { smallRequests } from './requests.ts';

const run = promisify(execFile);
const kubeconfig = process.env.CDE_TEST_KUBECONFIG ?? join(homedir(), '.cache/cde/cluster/kubeconfig');
const kubectl = async (...args: string[]) =>
  (await run('kubectl', ['--kubeconfig', kubeconfig, ...args], { encoding: 'utf8' })).stdout.trim();

const { connections, installation } = testConnections();
let provider: Provider;
const clock = { at: () => new Date() };
const made: Workspace[] = [];
/** What a change of a workspace calls. */
const wakers = new Map<string, () => void>();

beforeAll(async () => {
  provider = makeKubernetesProvider({
    connections,
    installation,
    agentImage: await agentTestImage(),
    log: quiet,
    now: () => clock.at(),
  });
  provider.onChange((id) => wakers.get(id)?.());
  await connections.refresh();
  await vi.waitFor(() => expect(connections.get('one')?.view.synced).toBe(true), 15_000);
});
afterAll(async () => {
  await Promise.all(made.map((workspace) => workspace.remove('discard').catch(() => {})));
  await provider.close();
  await connections.close();
});

/** Drives the provider as the reconciler does: a move, its state kept, again when it says so or something changed. */
class Workspace {
  state: ProviderState = {};
  lines: string[] = [];
  readonly id = randomUUID();
  readonly name = `w${randomUUID().slice(0, 6)}`;
  buildId = '';
  serverUrl = 'http://127.0.0.1:9';
  last: StepResult | null = null;
  spec: WorkspaceSpec | null = null;
  /** The replica whose turn it is. */
  by = provider;
  constructor() {
    made.push(this);
  }
  get namespace(): string {
    return String(this.state.namespace);
  }
  /** As if the server was killed after each move before it had written down what came of it: each is done twice. */
  forgetful = false;
  #drive = async (next: () => Promise<StepResult>): Promise<StepResult> => {
    for (;;) {
      if (this.forgetful) await next();
      const move = await next();
      this.last = move;
      // As PostgreSQL would keep it.
      this.state = JSON.parse(JSON.stringify(move.state)) as ProviderState;
      if (move.kind !== 'pending') return move;
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, move.retryAfterMs);
        wakers.set(this.id, () => {
          clearTimeout(timer);
          resolve();
        });
      });
    }
  };
  context = { log: (text: string) => void this.lines.push(text) };
  plan(section: string, files: Record<string, string> = {}, restore?: WorkspaceSpec['restore']): void {
    const { template, faults } = parseTemplate({
      'template.yaml': `name: t\nprovider: kubernetes\nhome: { size: 1Gi }\nkubernetes:\n${`${section}\nrequests: ${JSON.stringify(smallRequests)}`.replace(/^/gm, '  ')}\n`,
      ...files,
    });
    expect(faults).toEqual([]);
    const rendered = renderTemplate(
      template!,
      {},
      {
        workspace: { id: this.id, name: this.name, owner: 'ada' },
        owner: { name: 'Ada', email: '' },
      },
    );
    if ('faults' in rendered) throw new Error(JSON.stringify(rendered.faults));
    this.spec = {
      workspaceId: this.id,
      owner: 'ada',
      name: this.name,
      template: rendered.ok,
      ...(restore && { restore }),
    };
    this.buildId = randomUUID();
  }
  start = () =>
    this.#drive(() =>
      this.by.start(
        this.spec!,
        { buildId: this.buildId, serverUrl: this.serverUrl, token: 'cde_agent_test' },
        this.state,
        this.context,
      ),
    );
  stop = () => this.#drive(() => provider.stop(this.id, this.state, this.context));
  remove = (home: 'keep' | 'discard') =>
    this.#drive(() => provider.remove(this.id, this.state, home, this.context));
  observe = () => provider.observe(this.id, this.state, this.spec!);
  /** What its build was told, where it stands, and what its namespace holds. */
  async tell(): Promise<void> {
    const all = ['get', 'all,pvc,resourcequota,events', '-n', this.namespace, '-o', 'wide'];
    const seen = await kubectl(...all).catch(String);
    console.error(this.namespace, this.lines, this.state, this.last, seen);
  }
  exec = (...command: string[]) =>
    kubectl('-n', this.namespace, 'exec', 'workspace-0', '-c', 'workspace', '--', ...command);
}
const debian = `image: ${images.debian}\npullPolicy: IfNotPresent`;

/** A volume on the node itself, root's and 0755 as a fresh disk is: unlike a hostPath it honours fsGroup. */
async function localVolume(name: string): Promise<{ storageClass: string; remove(): Promise<void> }> {
  const unique = `cde-test-local-${name}`;
  const apply = async (object: object) => {
    const child = run('kubectl', ['--kubeconfig', kubeconfig, 'apply', '-f', '-']);
    child.child.stdin!.end(JSON.stringify(object));
    await child;
  };
  await apply({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: unique, namespace: 'default' },
    spec: {
      terminationGracePeriodSeconds: 0,
      containers: [
        {
          name: 'folder',
          image: images.debian,
          imagePullPolicy: 'IfNotPresent',
          command: ['sh', '-c', `mkdir -m 755 /node/${unique} && exec sleep infinity`],
          volumeMounts: [{ name: 'node', mountPath: '/node' }],
        },
      ],
      volumes: [{ name: 'node', hostPath: { path: '/tmp' } }],
    },
  });
  await kubectl('wait', '-n', 'default', '--for=condition=Ready', `pod/${unique}`, '--timeout=300s');
  const node = await kubectl('-n', 'default', 'get', 'pod', unique, '-o', 'jsonpath={.spec.nodeName}');
  await apply({
    apiVersion: 'v1',
    kind: 'PersistentVolume',
    metadata: { name: unique },
    spec: {
      storageClassName: unique,
      capacity: { storage: '1Gi' },
      accessModes: ['ReadWriteOnce'],
      persistentVolumeReclaimPolicy: 'Retain',
      local: { path: `/tmp/${unique}` },
      nodeAffinity: {
        required: {
          nodeSelectorTerms: [
            { matchExpressions: [{ key: 'kubernetes.io/hostname', operator: 'In', values: [node] }] },
          ],
        },
      },
    },
  });
  return {
    storageClass: unique,
    async remove() {
      await kubectl('delete', 'pv', unique, '--ignore-not-found', '--wait=false');
      await kubectl('-n', 'default', 'exec', unique, '--', 'rm', '-rf', `/node/${unique}`);
      await kubectl('-n', 'default', 'delete', 'pod', unique, '--wait=false');
    },
  };
}

/** What a purge returns that has spared the home. Others can be what an attempt before has left. */
const without = (id: string) => ({ purged: expect.not.arrayContaining([id]), incomplete: false });

test('a day: start, work, stop, start on a new image, delete, restore', async () => {
  const workspace = new Workspace();
  workspace.plan(debian);
  const before = connections.get('one')!.client.calls();
  // A write is repeated if it meets a change that the watches have not shown yet.
  expect(await workspace.start()).toMatchObject({ kind: 'done', location: { cluster: 'one' } });
  expect(connections.get('one')!.client.calls() - before).toBeLessThanOrEqual(20);
  expect(workspace.namespace).toBe(`cde-ada-${workspace.name}`);
  expect(await workspace.observe()).toEqual({ kind: 'running' });
  expect(
    await workspace.exec('sh', '-c', 'id -un; echo $HOME; pwd; cat ~/.bashrc; touch ~/mine; stat -c %U ~'),
  ).toBe('ada\n/home/ada\n/home/ada\nexport IMAGE_DOTFILES=12\nada');
  // Again is the same: nothing changes.
  expect(await workspace.start()).toMatchObject({ kind: 'done' });

  await kubectl(
    '-n',
    workspace.namespace,
    'create',
    'deployment',
    'own',
    `--image=${images.pause}`,
    '--replicas=2',
  );
  expect(await workspace.stop()).toMatchObject({ kind: 'done' });
  expect(await kubectl('-n', workspace.namespace, 'get', 'pods', '-o', 'name')).toBe('');
  expect(await workspace.observe()).toMatchObject({ kind: 'gone' });

  workspace.plan(`image: ${images.debianNewer}\npullPolicy: IfNotPresent`);
  const stopped = connections.get('one')!.client.calls();
  expect(await workspace.start()).toMatchObject({ kind: 'done' });
  expect(connections.get('one')!.client.calls() - stopped).toBeLessThanOrEqual(20);
  expect(await workspace.exec('sh', '-c', 'ls ~/mine; cat ~/.bashrc; ls ~/.vimrc')).toBe(
    '/home/ada/mine\nexport IMAGE_DOTFILES=12b\n/home/ada/.vimrc',
  );
  expect(
    await kubectl('-n', workspace.namespace, 'get', 'deployment', 'own', '-o', 'jsonpath={.spec.replicas}'),
  ).toBe('2');

  expect(await workspace.remove('keep')).toMatchObject({ kind: 'done', homeRetained: true });
  await expect(kubectl('get', 'namespace', workspace.namespace)).rejects.toThrow(/NotFound/);

  const second = new Workspace();
  second.plan(debian, {}, { workspaceId: workspace.id, state: workspace.state });
  expect(await second.start()).toMatchObject({ kind: 'done' });
  expect(await second.exec('sh', '-c', 'ls ~/mine')).toBe('/home/ada/mine');
  expect(second.state.homeVolume).toBe(workspace.state.homeVolume);
  // It is nobody's to purge now.
  expect(await provider.purgeHomes({})).toEqual(without(workspace.id));
});

test('a retained home is purged after its grace period, but not while it is claimed', async () => {
  const workspace = new Workspace();
  workspace.plan(debian);
  await workspace.start();
  const volume = String(workspace.state.homeVolume);
  const earlier = { retainedBefore: new Date(Date.now() - 1_000) };
  await workspace.remove('keep');
  expect(await provider.purgeHomes(earlier)).toEqual(without(workspace.id));
  expect(await provider.purgeHomes({ except: new Set([workspace.id]) })).toEqual(without(workspace.id));
  const now = { retainedBefore: new Date(Date.now() + 1_000) };
  expect(await provider.purgeHomes(now)).toEqual({
    purged: expect.arrayContaining([workspace.id]),
    incomplete: false,
  });
  await vi.waitFor(() => expect(kubectl('get', 'pv', volume)).rejects.toThrow(/NotFound/), 30_000);
});

// The others mostly wait, and do so beside each other.

test.concurrent('every step can be lost and repeated', async ({ onTestFailed }) => {
  const workspace = new Workspace();
  onTestFailed(() => workspace.tell());
  workspace.forgetful = true;
  workspace.plan(`${debian}\nservices: [{ name: cache, image: "${images.pause}", ports: [6379] }]`);
  expect(await workspace.start()).toMatchObject({ kind: 'done' });
  await workspace.exec('touch', '/home/ada/mine');
  await kubectl('-n', workspace.namespace, 'scale', 'deployment', 'cache', '--replicas=2');
  expect(await workspace.stop()).toMatchObject({ kind: 'done' });
  workspace.plan(`${debian}\nservices: [{ name: cache, image: "${images.pause}", ports: [6379] }]`);
  expect(await workspace.start()).toMatchObject({ kind: 'done' });
  const size = ['get', 'deployment', 'cache', '-o', 'jsonpath={.spec.replicas}'];
  expect(await kubectl('-n', workspace.namespace, ...size)).toBe('2');
  expect(await workspace.remove('keep')).toMatchObject({ kind: 'done', homeRetained: true });
  const second = new Workspace();
  onTestFailed(() => second.tell());
  second.forgetful = true;
  second.plan(debian, {}, { workspaceId: workspace.id, state: workspace.state });
  expect(await second.start()).toMatchObject({ kind: 'done' });
  expect(await second.exec('ls', '/home/ada/mine')).toBe('/home/ada/mine');
});

test.concurrent('an abandoned restore leaves the home with its former workspace', async () => {
  const workspace = new Workspace();
  workspace.plan(debian);
  await workspace.start();
  await workspace.exec('touch', '/home/ada/mine');
  await workspace.remove('keep');
  const second = new Workspace();
  second.plan(
    'image: cde-test/nope:1\npullPolicy: Never',
    {},
    { workspaceId: workspace.id, state: workspace.state },
  );
  expect(await second.start()).toMatchObject({ kind: 'failed' });
  const gone = await second.remove('discard');
  expect(gone).toMatchObject({ kind: 'done' });
  expect(gone).toMatchObject({ homeRetained: false });
  const third = new Workspace();
  third.plan(debian, {}, { workspaceId: workspace.id, state: workspace.state });
  expect(await third.start()).toMatchObject({ kind: 'done' });
  expect(await third.exec('ls', '/home/ada/mine')).toBe('/home/ada/mine');
});

test.concurrent('a restore of which a killed server recorded little leaves the home with its former workspace', async () => {
  const workspace = new Workspace();
  workspace.plan(debian);
  await workspace.start();
  await workspace.exec('touch', '/home/ada/mine');
  await workspace.remove('keep');
  const restore = { workspaceId: workspace.id, state: workspace.state };
  const second = new Workspace();
  second.plan('image: cde-test/nope:1\npullPolicy: Never', {}, restore);
  const launch = { buildId: second.buildId, serverUrl: 'http://127.0.0.1:9', token: 'cde_agent_test' };
  const step = () => provider.start(second.spec!, launch, second.state, second.context);
  second.state = (await step()).state;
  const { view } = connections.get('one')!;
  await until(async () => {
    // What this one returns is lost.
    await step();
    return view.get('PersistentVolumeClaim', second.namespace, 'home')?.status?.phase === 'Bound';
  }, 'the claim to be bound to the home');
  expect(await second.remove('discard')).toMatchObject({ kind: 'done', homeRetained: false });
  const third = new Workspace();
  third.plan(debian, {}, restore);
  expect(await third.start()).toMatchObject({ kind: 'done' });
  expect(await third.exec('ls', '/home/ada/mine')).toBe('/home/ada/mine');
});

test.concurrent('inside, the developer is a regular user: sudo, new users, no zombies, their own home', async () => {
  const workspace = new Workspace();
  workspace.plan(`${debian}\nallowPrivilegeEscalation: true`);
  await workspace.start();
  expect(await workspace.exec('sudo', '-n', 'id', '-un')).toBe('root');
  // A hostname that is not the pod's own name came with 1.35.
  const minor = Number(/^v1\.(\d+)/.exec(connections.get('one')!.version!)![1]);
  expect(await workspace.exec('hostname')).toBe(minor < 35 ? 'workspace-0' : workspace.name);
  // What packages of daemons do when they are installed.
  await workspace.exec('sudo', '-n', 'useradd', '--system', 'postgres');
  expect(await workspace.exec('sh', '-c', 'id -un postgres; id -un; stat -c %u:%g ~ ~/.bashrc')).toBe(
    'postgres\nada\n1000:1000\n1000:1000',
  );
  // A daemon's orphan is collected when it ends.
  await workspace.exec('sh', '-c', '(setsid sh -c "sleep 0.2" &) ; sleep 1');
  expect(await workspace.exec('sh', '-c', 'ps -eo stat= | grep -c ^Z || true')).toBe('0');
});

test.concurrent('a stop ends workloads that cannot be scaled, and the start brings them back', async () => {
  const workspace = new Workspace();
  workspace.plan(debian);
  await workspace.start();
  const daemons = `apiVersion: apps/v1
kind: DaemonSet
metadata: { name: logs }
spec:
  selector: { matchLabels: { app: logs } }
  template:
    metadata: { labels: { app: logs } }
    spec: { containers: [{ name: logs, image: "${images.pause}" }] }
`;
  await run('sh', [
    '-c',
    `printf '%s' '${daemons}' | kubectl --kubeconfig ${kubeconfig} -n ${workspace.namespace} apply -f -`,
  ]);
  const pods = () => kubectl('-n', workspace.namespace, 'get', 'pods', '-o', 'name');
  await vi.waitFor(async () => expect(await pods()).toContain('logs-'), 20_000);
  expect(await workspace.stop()).toMatchObject({ kind: 'done' });
  expect(await pods()).toBe('');
  expect(workspace.lines.join('\n')).toContain('DaemonSet logs');
  expect(await workspace.start()).toMatchObject({ kind: 'done' });
  await vi.waitFor(async () => expect(await pods()).toContain('logs-'), 60_000);
});

/** Another replica, whose watch of claims shows them as they were created until it has caught up. */
async function laggingReplica() {
  const { connections: own } = testConnections(undefined, installation);
  await own.refresh();
  await until(() => own.get('one')?.view.synced, 'its watches to have listed');
  let caughtUp = false;
  const asCreated = (claim: Kube<'PersistentVolumeClaim'>) => {
    const { volumeName: _, ...spec } = claim.spec!;
    const metadata = { ...claim.metadata, resourceVersion: '1' };
    return { ...claim, metadata, spec, status: { phase: 'Pending' as const } };
  };
  const lagging = (connection: Connection | null) =>
    connection && {
      ...connection,
      view: {
        ...connection.view,
        synced: true,
        get: ((kind: WatchedKind, namespace: string, name: string) => {
          const found = connection.view.get(kind, namespace, name);
          return found?.kind === 'PersistentVolumeClaim' && !caughtUp ? asCreated(found) : found;
        }) as Connection['view']['get'],
      },
    };
  const replica = makeKubernetesProvider({
    connections: { ...own, get: (name) => lagging(own.get(name)) },
    installation,
    agentImage: await agentTestImage(),
    log: quiet,
  });
  return {
    provider: replica,
    catchUp: () => {
      caughtUp = true;
    },
    async close() {
      await replica.close();
      await own.close();
    },
  };
}

test.concurrent.each([
  ['the same build', false],
  ['a newer build', true],
])('a replica whose watches lag continues a start with the same home: %s', async (_, newer) => {
  const workspace = new Workspace();
  workspace.plan(debian);
  expect(await workspace.start()).toMatchObject({ kind: 'done' });
  const { cluster, namespace, homeVolume } = workspace.state;
  await workspace.exec('touch', '/home/ada/mine');
  // What the first replica had recorded when it was killed.
  workspace.state = { cluster, namespace };
  workspace.last = null;
  if (newer) workspace.plan(debian);
  const replica = await laggingReplica();
  try {
    workspace.by = replica.provider;
    const starting = workspace.start();
    await until(
      () => workspace.last?.kind === 'pending' || workspace.last?.kind === 'done',
      'its first step',
    );
    replica.catchUp();
    expect(await starting).toMatchObject({ kind: 'done' });
  } finally {
    await replica.close();
  }
  expect(workspace.state.homeVolume).toBe(homeVolume);
  expect(await workspace.exec('ls', '/home/ada/mine')).toBe('/home/ada/mine');
});

test.concurrent('a start whose claim is deleted by hand gives the same home to a new claim', async () => {
  const workspace = new Workspace();
  workspace.plan(debian);
  expect(await workspace.start()).toMatchObject({ kind: 'done' });
  const { cluster, namespace, homeVolume } = workspace.state;
  await workspace.exec('touch', '/home/ada/mine');
  // As a replica leaves it that is killed before it has recorded anything of the start, and has set its volume to stay.
  workspace.state = { cluster, namespace };
  await kubectl(
    'patch',
    'pv',
    String(homeVolume),
    '-p',
    '{"spec":{"persistentVolumeReclaimPolicy":"Delete"}}',
  );
  await kubectl('-n', workspace.namespace, 'delete', 'pvc', 'home', '--wait=false');
  const { view } = connections.get('one')!;
  await until(
    () => view.get('PersistentVolumeClaim', workspace.namespace, 'home')?.metadata.deletionTimestamp,
    'the watch to show that the claim is being deleted',
  );
  expect(await workspace.start(), workspace.lines.join('\n')).toMatchObject({ kind: 'done' });
  expect(workspace.lines).toContain(
    'The claim of the home is being deleted; its volume is kept and gets a new claim.',
  );
  expect(workspace.state.homeVolume).toBe(homeVolume);
  expect(await workspace.exec('ls', '/home/ada/mine')).toBe('/home/ada/mine');
});

test.concurrent('a start that a replica with another URL continues is done when its pod has been replaced', async () => {
  const workspace = new Workspace();
  workspace.plan(debian);
  expect(await workspace.start()).toMatchObject({ kind: 'done' });
  const { cluster, namespace, podUid } = workspace.state;
  // What the first replica had recorded when it was killed.
  workspace.state = { cluster, namespace };
  workspace.serverUrl = 'http://127.0.0.1:10';
  expect(await workspace.start()).toMatchObject({ kind: 'done' });
  expect(workspace.state.podUid).not.toBe(podUid);
  const uid = ['-o', 'jsonpath={.metadata.uid}{.metadata.deletionTimestamp}'];
  expect(await kubectl('-n', workspace.namespace, 'get', 'pod', 'workspace-0', ...uid)).toBe(
    workspace.state.podUid,
  );
});

test.concurrent('a deletion begins with the pod and its claim, and the home survives that', async () => {
  const workspace = new Workspace();
  workspace.plan(debian);
  await workspace.start();
  const volume = String(workspace.state.homeVolume);
  const removing = await provider.remove(workspace.id, workspace.state, 'keep', workspace.context);
  expect(removing).toMatchObject({ kind: 'pending' });
  // Kubernetes itself begins with the content of the namespace 5 s later.
  const field = (kind: string, name: string, path: string) =>
    kubectl('-n', workspace.namespace, 'get', kind, name, '--ignore-not-found', '-o', `jsonpath={${path}}`);
  expect(await field('statefulset', 'workspace', '.metadata.name')).toBe('');
  expect(await field('pvc', 'home', '.spec.volumeName}{.metadata.deletionTimestamp')).not.toBe(volume);
  expect(await workspace.remove('keep')).toMatchObject({ kind: 'done', homeRetained: true });
  const kept = ['-o', 'jsonpath={.spec.persistentVolumeReclaimPolicy} {.metadata.deletionTimestamp}'];
  expect(await kubectl('get', 'pv', volume, ...kept)).toBe('Retain');
});

test.concurrent('a larger home grows', async () => {
  const workspace = new Workspace();
  workspace.plan(debian);
  await workspace.start();
  await workspace.stop();
  workspace.plan(debian);
  workspace.spec!.template.home.size = '2Gi';
  expect(await workspace.start()).toMatchObject({ kind: 'done' });
  const claim = ['get', 'pvc', 'home', '-o', 'jsonpath={.spec.resources.requests.storage}'];
  expect(await kubectl('-n', workspace.namespace, ...claim)).toBe('2Gi');
});

test.concurrent('a namespace that belongs to somebody else is not used', async () => {
  const workspace = new Workspace();
  await kubectl('create', 'namespace', `cde-ada-${workspace.name}`);
  try {
    workspace.plan(debian);
    expect(await workspace.start()).toMatchObject({ kind: 'done' });
    expect(workspace.namespace).toMatch(new RegExp(`^cde-ada-${workspace.name}-[0-9a-f]{6}$`));
  } finally {
    await kubectl('delete', 'namespace', `cde-ada-${workspace.name}`, '--wait=false');
  }
});

test.concurrent('the deletion of a namespace is detected, and the next start brings the home back', async () => {
  const workspace = new Workspace();
  workspace.plan(debian);
  await workspace.start();
  await workspace.exec('touch', '/home/ada/precious');
  const changed = new Promise<void>((resolve) => wakers.set(workspace.id, resolve));
  await kubectl('delete', 'namespace', workspace.namespace, '--wait=false');
  await changed;
  expect(await workspace.observe()).toMatchObject({
    kind: 'gone',
    cause: 'removed',
    message: expect.stringContaining(workspace.namespace),
  });
  workspace.plan(debian);
  expect(await workspace.start()).toMatchObject({ kind: 'done' });
  expect(await workspace.exec('ls', '/home/ada/precious')).toBe('/home/ada/precious');
});

test.concurrent('a start fails if the volume of the home is gone', async () => {
  const workspace = new Workspace();
  workspace.plan(debian);
  await workspace.start();
  await workspace.stop();
  const volume = String(workspace.state.homeVolume);
  await kubectl('-n', workspace.namespace, 'delete', 'pvc', 'home', '--wait=false');
  await kubectl('delete', 'pv', volume, '--wait=false');
  await vi.waitFor(() => expect(kubectl('get', 'pv', volume)).rejects.toThrow(/NotFound/), 30_000);
  workspace.plan(debian);
  expect(await workspace.start()).toMatchObject({ kind: 'failed', error: { code: 'home-lost' } });
});

test.concurrent('a deleted pod is detected; edited or deleted limits of the namespace are restored', async () => {
  const workspace = new Workspace();
  workspace.plan(`${debian}\nquota: { pods: 7 }`);
  await workspace.start();
  const inside = (...args: string[]) => kubectl('-n', workspace.namespace, ...args);
  const patch = (kind: string, name: string, merge: object) =>
    inside('patch', kind, name, '--type=merge', '-p', JSON.stringify(merge));
  const bounds = async () => {
    const kinds = 'limitrange/cde,networkpolicy/cde,rolebinding/developer'.split(',');
    const found = await Promise.all(kinds.map((kind) => inside('get', kind, '-o', 'json')));
    return found.map((text) => {
      const { metadata, spec, roleRef, subjects } = JSON.parse(text);
      return { labels: metadata.labels, spec, roleRef, subjects };
    });
  };
  const before = await bounds();
  await patch('networkpolicy', 'cde', { spec: { ingress: [{}] } });
  await inside('delete', 'limitrange', 'cde');
  await inside('delete', 'rolebinding', 'developer');
  await inside(
    'create',
    'rolebinding',
    'developer',
    '--clusterrole=view',
    '--serviceaccount=default:default',
  );
  await inside('label', 'rolebinding', 'developer', '--overwrite', 'cde.dev/managed=true');
  await inside('delete', 'serviceaccount', 'developer');
  await vi.waitFor(
    async () => {
      expect(await workspace.observe()).toMatchObject({ kind: 'running' });
      expect(await bounds()).toEqual(before);
      expect(await inside('get', 'serviceaccount', 'developer', '-o', 'name')).toBe(
        'serviceaccount/developer',
      );
    },
    { timeout: 30_000, interval: 500 },
  );
  await kubectl(
    '-n',
    workspace.namespace,
    'patch',
    'quota',
    'cde',
    '--type=merge',
    '-p',
    '{"spec":{"hard":{"pods":"99"}}}',
  );
  const hard = () =>
    kubectl('-n', workspace.namespace, 'get', 'quota', 'cde', '-o', 'jsonpath={.spec.hard.pods}');
  await vi.waitFor(async () => {
    expect(await workspace.observe()).toMatchObject({ kind: 'running' });
    expect(await hard()).toBe('7');
  }, 20_000);
  await kubectl('-n', workspace.namespace, 'delete', 'pod', 'workspace-0', '--wait=false');
  await vi.waitFor(
    async () => expect(await workspace.observe()).toMatchObject({ kind: 'gone', cause: 'removed' }),
    30_000,
  );
});

test.concurrent.each([
  ['musl', `image: ${images.musl}\npullPolicy: IfNotPresent`],
  [
    'non-root, restricted',
    `image: ${images.nonroot}\npullPolicy: IfNotPresent\npodSecurity: restricted\nuser: 1000`,
  ],
  ['read-only root', `${debian}\nreadOnlyRoot: true`],
])('the agent runs in an image that is %s', async (what, section) => {
  const workspace = new Workspace();
  workspace.plan(section);
  const move = await workspace.start();
  // A hostPath does not honour fsGroup, which a restricted pod needs: told in words.
  if (what.includes('restricted') && move.kind === 'failed')
    return expect(move.error).toMatchObject({ code: 'home-not-writable' });
  expect(move).toMatchObject({ kind: 'done' });
  expect(await workspace.exec('/opt/cde/node', '-e', 'console.log(process.version.slice(0, 3))')).toBe('v24');
  expect(await workspace.exec('sh', '-c', 'echo ok > ~/x && echo ok > /tmp/x && cat ~/x')).toBe('ok');
});

test.concurrent('restricted: nothing runs as root, and the developer owns a home on a volume that supports fsGroup', async () => {
  const workspace = new Workspace();
  const home = await localVolume(workspace.name);
  try {
    // The service is refused without a security context of its own.
    workspace.plan(
      `image: ${images.nonroot}\npullPolicy: IfNotPresent\npodSecurity: restricted\nuser: 1000\nstorageClass: ${home.storageClass}\nservices: [{ name: side, image: "${images.nonroot}", command: [sleep, infinity] }]`,
    );
    expect(await workspace.start(), workspace.lines.join('\n')).toMatchObject({ kind: 'done' });
    expect(await workspace.observe()).toEqual({ kind: 'running' });
    const words =
      'echo ok > ~/x && cat ~/x && id -u && sed -n /NoNewPrivs/p /proc/self/status && ls ~/.bashrc';
    expect(await workspace.exec('sh', '-c', words)).toBe('ok\n1000\nNoNewPrivs:\t1\n/home/ada/.bashrc');
    expect(await workspace.stop()).toMatchObject({ kind: 'done' });
    workspace.plan(
      `image: ${images.nonroot}\npullPolicy: IfNotPresent\npodSecurity: restricted\nuser: 1000\nstorageClass: ${home.storageClass}`,
    );
    expect(await workspace.start()).toMatchObject({ kind: 'done' });
    expect(await workspace.exec('sh', '-c', 'cat ~/x')).toBe('ok');
  } finally {
    await workspace.remove('discard');
    await home.remove();
  }
});

test.concurrent('a start waits for its services, and continues without one that cannot run, with the reason', async () => {
  const workspace = new Workspace();
  const slow = `{ name: slow, image: "${images.debian}", command: [sh, -c, "sleep 2; touch /tmp/ok; exec sleep infinity"], ready: { command: [test, -e, /tmp/ok] } }`;
  workspace.plan(`image: ${images.debian}\npullPolicy: Never\nservices: [${slow}]`);
  expect(await workspace.start()).toMatchObject({ kind: 'done' });
  const available = ['get', 'deployment', 'slow', '-o', 'jsonpath={.status.readyReplicas}'];
  expect(await kubectl('-n', workspace.namespace, ...available)).toBe('1');
  expect(await workspace.observe()).toEqual({ kind: 'running' });

  workspace.plan(
    `image: ${images.debian}\npullPolicy: Never\nservices: [${slow}, { name: gone, image: "cde-test/nope:1" }]`,
  );
  expect(await workspace.start()).toMatchObject({ kind: 'done' });
  const log = workspace.lines.join('\n');
  expect(log).toMatch(/^The service gone: .*cde-test\/nope:1/m);
  expect(log).toContain('the workspace starts without gone');
  expect(await workspace.observe()).toMatchObject({
    kind: 'running',
    warning: expect.stringContaining('The service gone: '),
  });
});

test.concurrent('a template limits how long a start can take', async () => {
  const workspace = new Workspace();
  workspace.plan(`${debian}\nstartTimeout: 1s\nnodeSelector: { pool: none }`);
  expect(await workspace.start()).toMatchObject({
    kind: 'failed',
    // Without a reason if the scheduler was slower than this.
    error: { code: expect.stringMatching(/node|volume|start-timeout/) },
  });
});

test.concurrent('a missing kernel profile is reported before and during a start, which continues when a node has it', async () => {
  const workspace = new Workspace();
  const profile = `p${workspace.name}`;
  workspace.plan(`${debian}\nkernelProfile: ${profile}`);
  const message = `No node of the cluster keeps the kernel profile ${profile}.`;
  expect(await dryRunTemplate(connections.get('one')!, workspace.spec!)).toMatchObject([
    { code: 'kernel-profile-missing', message },
  ]);
  const starting = workspace.start();
  await vi.waitFor(() => expect(workspace.lines.join('\n')).toContain(message), 60_000);
  // As noded does it.
  const node = await kubectl('get', 'nodes', '-o', 'jsonpath={.items[0].metadata.name}');
  const label = `cde.dev/kernel-profile.${profile}`;
  await kubectl('label', 'node', node, `${label}=ready`);
  try {
    expect(await starting).toMatchObject({ kind: 'done' });
  } finally {
    await kubectl('label', 'node', node, `${label}-`);
  }
});

test.concurrent('a missing storage class is reported before a start', async () => {
  const workspace = new Workspace();
  workspace.plan(`${debian}\nstorageClass: nope`);
  expect(await dryRunTemplate(connections.get('one')!, workspace.spec!)).toMatchObject([
    {
      code: 'storage-class-missing',
      message: expect.stringContaining('The home names the StorageClass nope'),
    },
  ]);
});

test.concurrent('an image without a shell is rejected with an explanation', async () => {
  const workspace = new Workspace();
  workspace.plan(`image: ${images.scratch}\npullPolicy: IfNotPresent`);
  expect(await workspace.start()).toMatchObject({
    kind: 'failed',
    error: { code: 'image-without-shell', fault: 'user' },
  });
});

test.concurrent('an image that cannot be pulled is named in the failure', async () => {
  const workspace = new Workspace();
  workspace.plan('image: cde-test/nope:1\npullPolicy: Never');
  const move = await workspace.start();
  expect(move).toMatchObject({ kind: 'failed', error: { fault: 'user' } });
  expect(JSON.stringify(move)).toContain('cde-test/nope:1');
});

test.concurrent('services and manifests are created, removed when a version drops them, and their volumes stay', async () => {
  const workspace = new Workspace();
  workspace.plan(
    `${debian}\nservices:\n  - { name: cache, image: "${images.pause}", ports: [6379], storage: { path: /data, size: 10Mi } }`,
    {
      'manifests/a.yaml': `apiVersion: v1\nkind: ConfigMap\nmetadata: { name: extra }\ndata: { who: "\${{ workspace.owner }}" }\n`,
    },
  );
  expect(await workspace.start()).toMatchObject({ kind: 'done' });
  expect(
    await kubectl('-n', workspace.namespace, 'get', 'configmap', 'extra', '-o', 'jsonpath={.data.who}'),
  ).toBe('ada');
  workspace.plan(debian);
  expect(await workspace.start()).toMatchObject({ kind: 'done' });
  const left = await kubectl(
    '-n',
    workspace.namespace,
    'get',
    'configmap,deployment,service,pvc',
    '-o',
    'name',
  );
  expect(left.split('\n').sort()).toEqual([
    'configmap/kube-root-ca.crt',
    'persistentvolumeclaim/cache-data',
    'persistentvolumeclaim/home',
  ]);
});

test.concurrent.each([
  [
    'a field that its kind does not have',
    'spec: { ports: [{ port: 80 }], sort: x }',
    '.spec.sort: field not declared',
  ],
  ['a value of another type', 'spec: { ports: [{ port: 80, name: [a] }] }', 'expected string'],
  ['a value that is out of range', 'spec: { ports: [{ port: 99999 }] }', '99999'],
])("a manifest with %s fails the start at once, with the cluster's message", async (_, spec, words) => {
  const workspace = new Workspace();
  workspace.plan(debian, {
    'manifests/a.yaml': `apiVersion: v1\nkind: Service\nmetadata: { name: odd }\n${spec}\n`,
  });
  expect(await workspace.start()).toMatchObject({
    kind: 'failed',
    error: {
      code: 'manifest-refused',
      message: 'The cluster rejects the Service odd.',
      detail: expect.stringContaining(words),
    },
  });
});

test.concurrent('cluster-scoped kinds are rejected', async () => {
  const workspace = new Workspace();
  workspace.plan(debian);
  workspace.spec!.template.manifests = [
    {
      apiVersion: 'scheduling.k8s.io/v1',
      kind: 'PriorityClass',
      metadata: { name: 'mine' },
      value: 1,
    } as never,
  ];
  expect(await workspace.start()).toMatchObject({ kind: 'failed', error: { code: 'kind-not-namespaced' } });
  await expect(kubectl('get', 'priorityclass', 'mine')).rejects.toThrow(/NotFound/);
});

test.concurrent('a field that another manager owns is reported, not overwritten', async () => {
  const workspace = new Workspace();
  const files = {
    'manifests/a.yaml': 'apiVersion: v1\nkind: ConfigMap\nmetadata: { name: extra }\ndata: { who: us }\n',
  };
  workspace.plan(debian, files);
  await workspace.start();
  await kubectl(
    '-n',
    workspace.namespace,
    'patch',
    'configmap',
    'extra',
    '--field-manager=them',
    '--type=merge',
    '-p',
    '{"data":{"who":"them"}}',
  );
  workspace.plan(debian, files);
  expect(await workspace.start()).toMatchObject({
    kind: 'failed',
    error: { code: 'field-conflict', detail: expect.stringContaining('data.who is owned by them') },
  });
});

test.concurrent('the developer is admin of this namespace only', async () => {
  const workspace = new Workspace();
  workspace.plan(debian);
  await workspace.start();
  const as = `--as=system:serviceaccount:${workspace.namespace}:developer`;
  const may = async (...what: string[]) =>
    (
      await kubectl('auth', 'can-i', ...what, as).catch((error) => (error as { stdout: string }).stdout)
    ).trim();
  expect(await may('create', 'deployments', '-n', workspace.namespace)).toBe('yes');
  expect(await may('update', 'resourcequotas', '-n', workspace.namespace)).toBe('no');
  expect(await may('get', 'pods', '-n', 'kube-system')).toBe('no');
  expect(await may('list', 'namespaces')).toBe('no');
});
