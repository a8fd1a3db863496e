// noded as the chart installs it, in its image, on the kernel of this machine: what it sets here is restored, by it and,
// if it fails, by this test. The chart's server waits for a database meanwhile, which noded does not need.
import { spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { KubeConfig } from '@kubernetes/client-node';
import { afterAll, beforeAll, expect, onTestFinished, test, vi } from 'vitest';
import { images, importImages } from '../cluster/images.ts';
import { kubeconfigPath } from '../cluster/layout.ts';
import { tool } from '../cluster/tool.ts';
import { buildCdeImages } from './cde-images.ts';

const chart = fileURLToPath(new URL('../../helm', import.meta.url));
const id = randomBytes(3).toString('hex');
const namespace = `noded-test-${id}`;
const kubeconfig = process.env.CDE_TEST_KUBECONFIG!;
/** The test reads the kernel of the node as its own, and images are imported: known for the cluster of tests/cluster alone. */
const ours = kubeconfig === kubeconfigPath;
const label = (profile: string) => `cde.dev/kernel-profile.${profile}`;

let helm: string;
let kube: string;
let node: string;
const sysctls = [
  'fs.aio-max-nr',
  'fs.inotify.max_user_instances',
  'net.core.somaxconn',
  'kernel.pid_max',
  'vm.swappiness',
];
const pathOf = (sysctl: string) => `/proc/sys/${sysctl.replaceAll('.', '/')}`;
const value = (sysctl: string) => readFileSync(pathOf(sysctl), 'utf8').trim();
const values = () => Object.fromEntries(sysctls.map((sysctl) => [sysctl, value(sysctl)]));
const before = ours ? values() : {};
const data = '/var/lib/cde/noded';
const dataBefore = existsSync(data);
const more = (sysctl: string) => Number(before[sysctl]) + 1001;

function run(program: string, args: string[], input = '') {
  const ran = spawnSync(program, args, { input, encoding: 'utf8' });
  return { code: ran.status, output: ran.stdout + ran.stderr };
}
const kubectl = (...args: string[]) =>
  run(kube, ['kubectl', '--kubeconfig', kubeconfig, '-n', namespace, ...args]);
const create = (object: object) =>
  expect(
    run(
      kube,
      ['kubectl', '--kubeconfig', kubeconfig, '-n', namespace, 'apply', '-f', '-'],
      JSON.stringify(object),
    ).output,
  ).toContain('created');
const metadata = () => JSON.parse(kubectl('get', 'node', node, '-o', 'json').output).metadata;
const kernelLabels = () =>
  Object.keys(metadata().labels).filter((key) => key.startsWith('cde.dev/kernel-profile.'));
const told = () => JSON.parse(metadata().annotations['cde.dev/kernel-profiles'] ?? 'null');
const soon = (check: () => void) => vi.waitFor(check, { timeout: 100_000, interval: 500 });
/** The kubelet looks at a pod at once when it changes, and at its ConfigMaps then; else once a minute. */
const hurry = () =>
  kubectl(
    'annotate',
    'pod',
    '-l',
    'app.kubernetes.io/component=noded',
    '--overwrite',
    `test=${randomBytes(3).toString('hex')}`,
  );

const chartValues = (profiles: object) => ({
  accessUrl: 'https://cde.example.com',
  image: { tag: 'test', pullPolicy: 'Never' },
  server: { replicas: 1 },
  workspaces: { inCluster: false },
  // Neither the server's image nor its database is here.
  checkConfig: false,
  database: { external: { secret: 'none' } },
  noded: {
    enabled: true,
    hostNetwork: true,
    hostPID: true,
    profiles,
    resources: { requests: { cpu: '10m', memory: '32Mi' }, limits: { memory: '256Mi' } },
  },
});
const install = (profiles: object) => {
  const ran = run(
    helm,
    [
      'upgrade',
      '--install',
      'cde',
      chart,
      '--kubeconfig',
      kubeconfig,
      '--namespace',
      namespace,
      '--values',
      '-',
    ],
    JSON.stringify(chartValues(profiles)),
  );
  if (ran.code !== 0) throw new Error(ran.output);
};
/** A retry must not find the names of the first attempt taken. */
let attempts = 0;
let kept: string;
const profile = () => ({
  sysctls: {
    'fs.aio-max-nr': { atLeast: Number(before['fs.aio-max-nr']) + 1_048_576 },
    'fs.inotify.max_user_instances': more('fs.inotify.max_user_instances'),
    'net.core.somaxconn': { atLeast: more('net.core.somaxconn') },
    'kernel.pid_max': { atLeast: more('kernel.pid_max') },
  },
});

beforeAll(async () => {
  if (!ours) return;
  [helm, kube] = await Promise.all([tool('helm'), tool('kube')]);
  for (const archive of await buildCdeImages('test', ['cde-noded'])) await importImages(archive);
  node = kubectl('get', 'nodes', '-o', 'jsonpath={.items[0].metadata.name}').output;
  // A run that was killed leaves its noded, which has the node's port.
  const namespaces = kubectl('get', 'namespaces', '-o', 'jsonpath={.items[*].metadata.name}').output.split(
    ' ',
  );
  for (const left of namespaces.filter((name) => name.startsWith('noded-test-'))) {
    run(helm, ['uninstall', 'cde', '--no-hooks', '--kubeconfig', kubeconfig, '--namespace', left]);
    kubectl('delete', 'namespace', left);
  }
  kubectl('create', 'namespace', namespace);
});
afterAll(() => {
  if (!ours || !kube) return;
  run(helm, ['uninstall', 'cde', '--no-hooks', '--kubeconfig', kubeconfig, '--namespace', namespace]);
  kubectl('delete', 'namespace', namespace, '--wait=false');
  for (const [sysctl, text] of Object.entries(before))
    if (value(sysctl) !== text) writeFileSync(pathOf(sysctl), text);
  kubectl('label', 'node', node, ...kernelLabels().map((key) => `${key}-`), `${label('x')}-`);
  kubectl('annotate', 'node', node, 'cde.dev/kernel-profiles-');
  if (!dataBefore) rmSync(data, { recursive: true, force: true });
});

test.skipIf(!ours)(
  'a profile is applied to the node, and a pod that asks for it is scheduled there',
  async () => {
    // No node has it yet, in a retry either.
    kept = `kept-${id}-${++attempts}`;
    const asks = `asks-${attempts}`;
    create({
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: asks },
      spec: {
        nodeSelector: { [label(kept)]: 'ready' },
        terminationGracePeriodSeconds: 0,
        containers: [{ name: 'a', image: images.pause, imagePullPolicy: 'Never' }],
      },
    });
    const scheduled = () =>
      kubectl('get', 'pod', asks, '-o', 'jsonpath={.status.conditions[?(@.type=="PodScheduled")].status}')
        .output;
    await soon(() => expect(scheduled()).toBe('False'));
    install({ [kept]: profile() });
    await soon(() => expect(kernelLabels()).toEqual([label(kept)]));
    expect(values()).toEqual({
      'fs.aio-max-nr': String(Number(before['fs.aio-max-nr']) + 1_048_576),
      'fs.inotify.max_user_instances': String(more('fs.inotify.max_user_instances')),
      'net.core.somaxconn': String(more('net.core.somaxconn')),
      'kernel.pid_max': String(more('kernel.pid_max')),
      'vm.swappiness': before['vm.swappiness'],
    });
    await soon(() => expect(scheduled()).toBe('True'));
    expect(kubectl('rollout', 'status', 'daemonset/cde-noded', '--timeout=300s').code).toBe(0);
    const status = kubectl('exec', 'daemonset/cde-noded', '--', 'cat', '/proc/self/status').output;
    expect(status).toMatch(/CapEff:\s0+\n/);
  },
);

test.skipIf(!ours)('drift is repaired', async () => {
  writeFileSync(pathOf('fs.inotify.max_user_instances'), before['fs.inotify.max_user_instances']!);
  await soon(() =>
    expect(value('fs.inotify.max_user_instances')).toBe(String(more('fs.inotify.max_user_instances'))),
  );
  expect(kernelLabels()).toEqual([label(kept)]);
});

test.skipIf(!ours)('the node names profiles in conflict and maintains the other one', async () => {
  const [a, b] = [`a-${id}`, `b-${id}`];
  install({
    [kept]: profile(),
    [a]: { sysctls: { 'vm.swappiness': 61 } },
    [b]: { sysctls: { 'vm.swappiness': 62 } },
  });
  await soon(() => {
    hurry();
    expect(told()?.profiles).toMatchObject({
      [kept]: { state: 'ready' },
      [a]: {
        state: 'not-ready',
        reason: 'conflict',
        message: expect.stringContaining(`the profile ${b} wants 62`),
      },
      [b]: { state: 'not-ready', reason: 'conflict' },
    });
  });
  expect(kernelLabels()).toEqual([label(kept)]);
  expect(value('vm.swappiness')).toBe(before['vm.swappiness']);
  await soon(() =>
    expect(kubectl('describe', 'node', node).output).toMatch(/KernelProfileNotReady .*\(conflict\)/),
  );
});

test.skipIf(!ours)(
  "a token of one node's noded is of no use against others, or for anything else",
  async () => {
    const other = `other-${id}-${++attempts}`;
    create({ apiVersion: 'v1', kind: 'Node', metadata: { name: other } });
    onTestFinished(() => void kubectl('delete', 'node', other));
    const config = new KubeConfig();
    config.loadFromFile(kubeconfig);
    const { server, caData } = config.getCurrentCluster()!;
    const authority = `/tmp/cde-noded-${id}.crt`;
    writeFileSync(authority, Buffer.from(caData!, 'base64'));
    const token = kubectl(
      'exec',
      'daemonset/cde-noded',
      '--',
      'cat',
      '/var/run/secrets/kubernetes.io/serviceaccount/token',
    ).output.trim();
    const by = (bearer: string, ...args: string[]) => {
      const access = ['--server', server, '--certificate-authority', authority, '--token', bearer];
      return run(kube, ['kubectl', '--kubeconfig', '/dev/null', ...access, ...args]);
    };
    try {
      expect(by(token, 'label', 'node', node, `${label('x')}=ready`)).toMatchObject({ code: 0 });
      const refused: [string, string[]][] = [
        ['can change only this node', ['label', 'node', other, `${label('x')}=ready`]],
        [
          'can change only labels of the form',
          ['label', 'node', node, 'node-role.kubernetes.io/control-plane='],
        ],
        ['can change only labels of the form', ['label', 'node', node, 'kubernetes.io/os-']],
        [
          'can change only labels of the form',
          ['label', '--overwrite', 'node', node, 'kubernetes.io/os=plan9'],
        ],
        ['can change only the annotation', ['annotate', 'node', node, 'example.com/x=y']],
        ['only labels and annotations', ['cordon', node]],
        ['cannot delete resource', ['delete', 'node', other]],
        ['cannot list resource', ['get', 'secrets', '-A']],
      ];
      for (const [said, args] of refused) expect(by(token, ...args).output).toContain(said);
      expect(kubectl('get', 'node', node, '-o', 'jsonpath={.spec.unschedulable}').output).toBe('');
      // A token of the same account without a pod has no node.
      const loose = kubectl('create', 'token', 'cde-noded').output.trim();
      const { output } = by(loose, 'label', 'node', node, `${label('y')}=ready`);
      expect(output).toContain('can change only this node');
    } finally {
      rmSync(authority, { force: true });
    }
  },
);

test.skipIf(!ours)(
  'helm uninstall ends when the node is restored, and leaves nothing on it',
  async ({ task }) => {
    if (task.result?.retryCount) {
      // The attempt before has uninstalled it.
      install({ [kept]: profile() });
      await soon(() => expect(kernelLabels()).toEqual([label(kept)]));
    }
    const removing = spawn(helm, ['uninstall', 'cde', '--kubeconfig', kubeconfig, '--namespace', namespace], {
      stdio: 'pipe',
    });
    let said = '';
    for (const stream of [removing.stdout, removing.stderr])
      stream.on('data', (chunk) => {
        said += chunk;
      });
    await soon(() => {
      hurry();
      expect(removing.exitCode).not.toBeNull();
    });
    expect(said).toContain('uninstalled');
    expect(removing.exitCode).toBe(0);
    expect(values()).toEqual(before);
    expect(kernelLabels()).toEqual([]);
    expect(told()).toBeNull();
    expect(JSON.parse(readFileSync(`${data}/originals.json`, 'utf8')).sysctls).toEqual({});
    const left = kubectl(
      'get',
      'clusterroles,clusterrolebindings,validatingadmissionpolicies',
      '-o',
      'name',
    ).output;
    expect(left).not.toContain(namespace);
  },
);
