// noded as a process, on a node of its own in a real cluster (one that no kubelet stands behind) and a folder in place of
// its kernel. On a real kernel, in its container and by the chart: noded.test.ts.
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { annotationKey, labelPrefix } from '@cde/noded/report.ts';
import { CoreV1Api, KubeConfig } from '@kubernetes/client-node';
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest';
import { tool } from '../cluster/tool.ts';
import { compileCache } from '../kit/compile-cache.ts';
import { freePort } from '../kit/free-port.ts';

const id = randomBytes(3).toString('hex');
const name = `noded-test-${id}`;
const folder = mkdtempSync(join(tmpdir(), 'cde-noded-'));
const root = join(folder, 'fake-proc-sys');
const file = join(folder, 'profiles.yaml');
let core: CoreV1Api;
let port: number;
let proxy: ChildProcess;
let api: string;
let running: { child: ChildProcess; log: string; ended: Promise<number | null> } | null = null;

const path = (sysctl: string) => join(root, sysctl.replaceAll('.', '/'));
const value = (sysctl: string) => readFileSync(path(sysctl), 'utf8').trim();
function put(sysctl: string, text: string): void {
  mkdirSync(dirname(path(sysctl)), { recursive: true });
  writeFileSync(path(sysctl), `${text}\n`);
}
/** As Kubernetes replaces a file of a ConfigMap: whole. */
function want(profiles: unknown): void {
  const text = typeof profiles === 'string' ? profiles : JSON.stringify({ profiles });
  writeFileSync(`${file}.new`, text);
  renameSync(`${file}.new`, file);
}
function start(): void {
  const child = spawn(process.execPath, [join(import.meta.dirname, '../../noded/main.ts')], {
    env: {
      PATH: process.env.PATH,
      ...compileCache,
      CDE_NODED_API: api,
      CDE_NODE_NAME: name,
      CDE_NODED_PROFILES: file,
      CDE_NODED_SYSCTLS: root,
      CDE_NODED_DATA_DIR: join(folder, 'data'),
      CDE_NODED_LISTEN: `127.0.0.1:${port}`,
    },
  });
  const one = {
    child,
    log: '',
    ended: new Promise<number | null>((resolve) => child.once('close', resolve)),
  };
  child.stdout.on('data', (chunk) => {
    one.log += chunk;
  });
  child.stderr.on('data', (chunk) => {
    one.log += chunk;
  });
  running = one;
}
async function end(signal: NodeJS.Signals): Promise<number | null> {
  running!.child.kill(signal);
  const code = await running!.ended;
  running = null;
  return code;
}
async function node() {
  const { metadata } = await core.readNode({ name });
  return {
    labels: Object.keys(metadata!.labels ?? {}).filter((key) => key.startsWith(labelPrefix)),
    told: JSON.parse(metadata!.annotations?.[annotationKey] ?? 'null'),
  };
}
const label = (profile: string) => labelPrefix + profile;
const get = async (what: string) => {
  const reply = await fetch(`http://127.0.0.1:${port}${what}`);
  return { status: reply.status, text: await reply.text() };
};
const soon = <T>(check: () => T | Promise<T>) => vi.waitFor(check, { timeout: 40_000, interval: 200 });
const ready = { state: 'ready' };
/** What stands between noded and the cluster here; resolves with its port. */
async function startProxy(at: string): Promise<string> {
  const args = ['kubectl', '--kubeconfig', process.env.CDE_TEST_KUBECONFIG!, 'proxy', '--port', at];
  proxy = spawn(await tool('kube'), args, { stdio: ['ignore', 'pipe', 'inherit'] });
  return new Promise((resolve) =>
    proxy.stdout!.on('data', (chunk) => resolve(/127\.0\.0\.1:(\d+)/.exec(String(chunk))![1]!)),
  );
}

beforeAll(async () => {
  const config = new KubeConfig();
  config.loadFromFile(process.env.CDE_TEST_KUBECONFIG!);
  core = config.makeApiClient(CoreV1Api);
  await core.createNode({
    body: {
      metadata: {
        name,
        labels: { pool: 'dev', [label('gone')]: 'ready', 'example.com/other': 'kept' },
        annotations: { 'example.com/other': 'kept' },
      },
      spec: { taints: [{ key: 'cde.dev/test', value: id, effect: 'NoSchedule' }] },
    },
  });
  api = `http://127.0.0.1:${await startProxy('0')}`;
  port = await freePort();
  put('kernel.random.boot_id', 'boot-1');
  put('fs.aio-max-nr', '65536');
  put('vm.swappiness', '60');
  put('fs.inotify.max_user_instances', '128');
});
afterEach(({ task }) => {
  if (task.result?.state === 'fail') console.log(running?.log);
});
afterAll(async () => {
  if (running) await end('SIGKILL');
  proxy?.kill();
  await core?.deleteNode({ name }).catch(() => {});
  const { items } = await core.listNamespacedEvent({
    namespace: 'default',
    fieldSelector: `involvedObject.name=${name}`,
  });
  for (const { metadata } of items)
    await core.deleteNamespacedEvent({ namespace: 'default', name: metadata.name! }).catch(() => {});
  rmSync(folder, { recursive: true, force: true });
});

const scylla = { sysctls: { 'fs.aio-max-nr': { atLeast: 1048576 } }, nodeSelector: { pool: 'dev' } };

test('the node reports the profiles that apply to it and no others', async () => {
  if (running) await end('SIGKILL');
  want({ scylla, other: { ...scylla, nodeSelector: { pool: 'prod' } } });
  start();
  await soon(async () =>
    expect(await node()).toEqual({
      labels: [label('scylla')],
      told: { profiles: { scylla: { ...ready, since: expect.any(String) } } },
    }),
  );
  expect(value('fs.aio-max-nr')).toBe('1048576');
  await soon(async () => expect((await get('/readyz')).status).toBe(200));
  expect((await get('/healthz')).status).toBe(200);
  const { metadata } = await core.readNode({ name });
  expect(metadata).toMatchObject({
    labels: { 'example.com/other': 'kept' },
    annotations: { 'example.com/other': 'kept' },
  });
});

test('drift is repaired and counted', async () => {
  const repaired = async () =>
    Number(
      /^cde_noded_changes_total\{sysctl="fs.aio-max-nr",what="repaired"\} (\d+)$/m.exec(
        (await get('/metrics')).text,
      )?.[1] ?? 0,
    );
  const before = await repaired();
  put('fs.aio-max-nr', '1000');
  await soon(() => expect(value('fs.aio-max-nr')).toBe('1048576'));
  await soon(async () => expect(await repaired()).toBe(before + 1));
  expect((await get('/metrics')).text).toContain('cde_noded_profile_ready{profile="scylla"} 1');
  await soon(() => expect(running!.log).toContain('another program had changed'));
});

test('the kernel is maintained while the cluster is unreachable, and the node is updated afterwards', async () => {
  const gone = new Promise((resolve) => proxy.once('close', resolve));
  proxy.kill('SIGKILL');
  await gone;
  put('fs.aio-max-nr', '1000');
  await soon(() => expect(value('fs.aio-max-nr')).toBe('1048576'));
  want({ scylla, second: { sysctls: { 'fs.inotify.max_user_instances': 1024 } } });
  await soon(() => expect(value('fs.inotify.max_user_instances')).toBe('1024'));
  await soon(() => expect(running!.log).toContain('The node cannot be updated in the cluster'));
  expect((await get('/healthz')).status).toBe(200);
  await startProxy(new URL(api).port);
  await soon(async () => expect((await node()).labels.sort()).toEqual([label('scylla'), label('second')]));
});

test('profiles in conflict lose their label, with the reason on the node and in an event', async () => {
  want({ scylla, a: { sysctls: { 'vm.swappiness': 1 } }, b: { sysctls: { 'vm.swappiness': 2 } } });
  await soon(async () => {
    const { labels, told } = await node();
    expect(labels).toEqual([label('scylla')]);
    expect(told.profiles).toMatchObject({
      scylla: ready,
      a: { reason: 'conflict' },
      b: { reason: 'conflict' },
    });
  });
  expect(value('vm.swappiness')).toBe('60');
  await soon(async () => {
    const { items } = await core.listNamespacedEvent({
      namespace: 'default',
      fieldSelector: `involvedObject.name=${name}`,
    });
    const said = items.map(({ type, reason, message }) => `${type} ${reason} ${message}`).join('\n');
    expect(said).toContain('Normal KernelProfileReady The kernel profile scylla is applied.');
    expect(said).toMatch(
      /Warning KernelProfileNotReady The kernel profile a is not applied \(conflict\): vm.swappiness/,
    );
  });
});

test('an invalid file is reported, and the last valid one stays in force', async () => {
  want('profiles: { scylla: { sysctls: { kernel.core_pattern: x } } }');
  await soon(async () => {
    const { labels, told } = await node();
    expect(told.fault).toContain('1:34 profiles › scylla: noded never sets kernel.core_pattern');
    expect(labels).toEqual([label('scylla')]);
  });
  // Also after a restart, with only the state on disk.
  await end('SIGKILL');
  put('fs.aio-max-nr', '1000');
  start();
  await soon(() => expect(value('fs.aio-max-nr')).toBe('1048576'));
  expect((await node()).labels).toEqual([label('scylla')]);
});

test('SIGTERM changes nothing; without profiles everything is restored and the node reports nothing', async () => {
  if (!running) {
    // It was ended by an attempt before.
    want({ scylla });
    start();
    await soon(async () => expect((await node()).labels).toEqual([label('scylla')]));
  }
  expect(await end('SIGTERM')).toBe(0);
  expect(value('fs.aio-max-nr')).toBe('1048576');
  expect((await node()).labels).toEqual([label('scylla')]);
  want({});
  start();
  await soon(async () => expect(await node()).toEqual({ labels: [], told: null }));
  expect(value('fs.aio-max-nr')).toBe('65536');
  expect(await end('SIGTERM')).toBe(0);
});
