// That the test cluster behaves as a cluster does, in what the tests of the provider stand on.
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { cpSync, existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { writeArchive } from '../cluster/archive.ts';
import { ctr, images, importImages } from '../cluster/images.ts';
import { kwokSelector, kwokTaint, startKwok } from '../cluster/kwok.ts';
import { kubeconfigPath } from '../cluster/layout.ts';
import { runAsync } from '../cluster/machine.ts';
import { startRegistry } from '../cluster/registry.ts';
import { tool } from '../cluster/tool.ts';
import { until } from '../kit/until.ts';

const unique = `cluster-test-${randomBytes(3).toString('hex')}`;
let kube: string;
/** Of one attempt at a test: its objects have fixed names. */
let namespace: string;
let attempts = 0;

const kubectl = (...args: string[]): Promise<string> =>
  runAsync(kube, ['kubectl', '--kubeconfig', process.env.CDE_TEST_KUBECONFIG!, '-n', namespace, ...args]);

/** Creates one object; its kind's defaults are the test's. */
async function create(object: object): Promise<void> {
  const child = spawn(kube, [
    'kubectl',
    '--kubeconfig',
    process.env.CDE_TEST_KUBECONFIG!,
    '-n',
    namespace,
    'create',
    '-f',
    '-',
  ]);
  let errors = '';
  child.stderr.on('data', (chunk) => {
    errors += chunk;
  });
  child.stdin.end(JSON.stringify(object));
  const [code] = await once(child, 'close');
  if (code !== 0) throw new Error(errors);
}

const pod = (name: string, container: object, rest: object = {}) => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name, labels: { app: name } },
  spec: {
    terminationGracePeriodSeconds: 0,
    containers: [{ name: 'main', image: images.debian, imagePullPolicy: 'IfNotPresent', ...container }],
    ...rest,
  },
});

const ready = (name: string) => kubectl('wait', '--for=condition=Ready', `pod/${name}`, '--timeout=300s');
const ended = (name: string) =>
  kubectl(
    'wait',
    '--for=jsonpath={.status.containerStatuses[0].state.terminated}',
    `pod/${name}`,
    '--timeout=300s',
  );
const sleeps = { command: ['sleep', 'infinity'] };

// Another cluster has other storage, and no registry of ours.
describe.skipIf(process.env.CDE_TEST_KUBECONFIG !== kubeconfigPath)('the test cluster', () => {
  beforeAll(async () => {
    kube = await tool('kube');
    await tool('registry');
    await tool('kwok');
  });

  beforeEach(async () => {
    namespace = `${unique}-${++attempts}`;
    await kubectl('create', 'namespace', namespace);
    // Made by a controller a moment after the namespace; no pod is admitted before.
    await until(
      () =>
        kubectl('get', 'serviceaccount', 'default').then(
          () => true,
          () => false,
        ),
      'the service account',
    );
  });

  afterEach(async () => {
    await kubectl('delete', 'namespace', namespace, '--wait=false');
  });

  test('a claim gets a volume, whose files outlive the pod and are deleted with the claim', async () => {
    await create({
      apiVersion: 'v1',
      kind: 'PersistentVolumeClaim',
      metadata: { name: 'home' },
      spec: { accessModes: ['ReadWriteOnce'], resources: { requests: { storage: '1Gi' } } },
    });
    const volumes = [{ name: 'home', persistentVolumeClaim: { claimName: 'home' } }];
    const mounted = { ...sleeps, volumeMounts: [{ name: 'home', mountPath: '/home/dev' }] };
    await create(pod('first', mounted, { volumes }));
    await ready('first');
    await kubectl('exec', 'first', '--', 'sh', '-c', 'echo kept > /home/dev/file');
    await kubectl('delete', 'pod', 'first');
    await create(pod('second', mounted, { volumes }));
    await ready('second');
    expect(await kubectl('exec', 'second', '--', 'cat', '/home/dev/file')).toBe('kept\n');

    await kubectl('patch', 'pvc', 'home', '-p', '{"spec":{"resources":{"requests":{"storage":"2Gi"}}}}');
    await kubectl('wait', '--for=jsonpath={.status.capacity.storage}=2Gi', 'pvc/home', '--timeout=300s');

    const volume = await kubectl('get', 'pvc', 'home', '-o', 'jsonpath={.spec.volumeName}');
    const path = await kubectl('get', 'pv', volume, '-o', 'jsonpath={.spec.hostPath.path}');
    expect(existsSync(path)).toBe(true);
    await kubectl('delete', 'pod', 'second');
    await kubectl('delete', 'pvc', 'home');
    await kubectl('wait', '--for=delete', `pv/${volume}`, '--timeout=300s');
    expect(existsSync(path)).toBe(false);
  });

  test('a volume with the policy Retain is kept, and a new claim can bind it', async () => {
    const claim = (name: string, volumeName?: string) => ({
      apiVersion: 'v1',
      kind: 'PersistentVolumeClaim',
      metadata: { name },
      spec: { accessModes: ['ReadWriteOnce'], resources: { requests: { storage: '1Gi' } }, volumeName },
    });
    await create(claim('old'));
    await kubectl('wait', '--for=jsonpath={.status.phase}=Bound', 'pvc/old', '--timeout=300s');
    const volume = await kubectl('get', 'pvc', 'old', '-o', 'jsonpath={.spec.volumeName}');
    await kubectl('patch', 'pv', volume, '-p', '{"spec":{"persistentVolumeReclaimPolicy":"Retain"}}');
    await kubectl('delete', 'pvc', 'old');
    await kubectl('wait', '--for=jsonpath={.status.phase}=Released', `pv/${volume}`, '--timeout=300s');
    await kubectl('patch', 'pv', volume, '--type=json', '-p', '[{"op":"remove","path":"/spec/claimRef"}]');
    await create(claim('new', volume));
    await kubectl('wait', '--for=jsonpath={.status.phase}=Bound', 'pvc/new', '--timeout=300s');
    await kubectl('patch', 'pv', volume, '-p', '{"spec":{"persistentVolumeReclaimPolicy":"Delete"}}');
  });

  test('a service is found by its name, and the service account reaches the API', async () => {
    const serve = 'while true; do printf "HTTP/1.0 200 OK\\r\\n\\r\\nhello" | nc -lN 8080; done';
    await create(
      pod('web', { image: images.musl, command: ['sh', '-c', serve.replace('-lN 8080', '-l -p 8080')] }),
    );
    await kubectl('expose', 'pod', 'web', '--port=80', '--target-port=8080');
    await create(pod('client', sleeps));
    await Promise.all([ready('web'), ready('client')]);
    const curl = (...args: string[]) =>
      kubectl('exec', 'client', '--', 'curl', '-sS', '--retry', '5', '--retry-all-errors', ...args);
    expect(await curl(`http://web.${namespace}.svc.cluster.local`)).toBe('hello');
    expect(await curl('http://web')).toBe('hello');

    const own = '/var/run/secrets/kubernetes.io/serviceaccount';
    const seen = await kubectl(
      ...['exec', 'client', '--', 'sh', '-c'],
      `curl -sS --cacert ${own}/ca.crt -H "Authorization: Bearer $(cat ${own}/token)" https://kubernetes.default.svc/api/v1/namespaces/${namespace}/pods`,
    );
    expect(seen).toContain(`system:serviceaccount:${namespace}:default`);
    expect(JSON.parse(seen)).toMatchObject({ reason: 'Forbidden' });
  });

  test("quotas reject and limits kill, with Kubernetes' own messages", async () => {
    await create(
      pod(
        'greedy',
        {
          command: ['bash', '-c', 'x=$(tail -c 200000000 /dev/zero | tr "\\0" a); echo $x'],
          resources: { limits: { memory: '32Mi', cpu: '1' } },
        },
        { restartPolicy: 'Never' },
      ),
    );
    await ended('greedy');
    expect(
      await kubectl(
        'get',
        'pod',
        'greedy',
        '-o',
        'jsonpath={.status.containerStatuses[0].state.terminated.reason}',
      ),
    ).toBe('OOMKilled');

    await create({
      apiVersion: 'v1',
      kind: 'ResourceQuota',
      metadata: { name: 'small' },
      spec: { hard: { 'requests.cpu': '100m' } },
    });
    await until(
      () =>
        create(pod('over', { ...sleeps, resources: { requests: { cpu: '1' } } })).then(
          () => kubectl('delete', 'pod', 'over').then(() => false),
          (error: Error) => error.message.includes('exceeded quota: small'),
        ),
      'the quota to refuse',
    );
    await kubectl('delete', 'resourcequota', 'small');
  });

  test('each image runs as documented', async () => {
    const print = 'id -u; ls -A /etc/skel; ls /lib/ld-musl-* /lib64/ld-linux-* 2>/dev/null';
    const shown = async (name: string, image: string) => {
      await create(pod(name, { image, command: ['sh', '-c', print] }, { restartPolicy: 'Never' }));
      await ended(name);
      return kubectl('logs', name);
    };
    expect(await shown('debian', images.debian)).toMatch(/^0\n(?!.*\.vimrc)[\s\S]*ld-linux/);
    expect(await shown('newer', images.debianNewer)).toContain('.vimrc');
    expect(await shown('nonroot', images.nonroot)).toMatch(/^1000\n/);
    expect(await shown('musl', images.musl)).toMatch(/^0\n.profile\n\/lib\/ld-musl-/);
    await create(pod('scratch', { image: images.scratch }));
    await ready('scratch');
    await expect(kubectl('exec', 'scratch', '--', 'sh')).rejects.toThrow(/executable file not found/);
  });

  test('an image pushed to the registry can be pulled from it', async () => {
    const registry = await startRegistry();
    const work = mkdtempSync(join(tmpdir(), 'cde-image-'));
    const name = `${registry.host}/pushed:1`;
    const mine = async () =>
      (await ctr('images', 'ls', '-q')).split('\n').filter((ref) => ref.startsWith(registry.host));
    try {
      mkdirSync(join(work, 'root'));
      cpSync(await tool('pause'), join(work, 'root/pause'));
      const archive = join(work, 'image.tar');
      // Not one of the others under another name, so that what is removed below is only this.
      const config = { Entrypoint: ['/pause'], Labels: { test: namespace } };
      await writeArchive(archive, [{ name, layers: [join(work, 'root')], config }]);
      await importImages(archive);
      await ctr('images', 'push', '--plain-http', name);
      await ctr('images', 'rm', '--sync', name);
      expect(await registry.tags('pushed')).toEqual(['1']);
      await create(pod('pulled', { image: name, imagePullPolicy: 'Always' }));
      await ready('pulled');
    } finally {
      await kubectl('delete', 'pod', 'pulled', '--ignore-not-found');
      for (const ref of await mine()) await ctr('images', 'rm', ref);
      rmSync(work, { recursive: true });
      await registry.stop();
    }
  });

  test("kwok's nodes and the pods on them are ready", async () => {
    const kwok = await startKwok(process.env.CDE_TEST_KUBECONFIG!, namespace, 2);
    try {
      await create(
        pod(
          'fake',
          { image: 'nowhere:1' },
          { nodeSelector: kwokSelector, tolerations: [{ ...kwokTaint, operator: 'Equal' }] },
        ),
      );
      await ready('fake');
      expect(kwok.nodes).toContain(await kubectl('get', 'pod', 'fake', '-o', 'jsonpath={.spec.nodeName}'));
      await kubectl('delete', 'pod', 'fake', '--timeout=300s');
    } finally {
      await kwok.stop();
    }
  });
});
