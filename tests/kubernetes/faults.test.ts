import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { KubeObject } from '@cde/server/providers/kubernetes/api/client.ts';
import { addUser } from '@cde/server/testing.ts';
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { until } from '../kit/until.ts';
import { makeTestbed, type Replica, type Testbed } from './testbed.ts';

/** What happens to clusters, done to a real one under a real server: nothing is lost, nothing hangs, all is said. */
let testbed: Testbed;
let server: Replica;
beforeAll(async () => {
  testbed = await makeTestbed('faults');
  server = await testbed.start();
  expect((await testbed.publish(server, 'plain')).status).toBe(201);
});
afterEach(() => testbed?.apiProxy.restore());
afterAll(() => testbed?.close());

async function publish(name: string, section: Record<string, unknown>, startup?: string): Promise<void> {
  const reply = await testbed.publish(server, name, section, undefined, startup);
  expect(reply, JSON.stringify(reply.body)).toMatchObject({ status: 201 });
}
async function create(template = 'plain'): Promise<{ name: string; id: string }> {
  const name = testbed.nextName();
  const created = await testbed.request(server, 'POST', '/api/v1/workspaces', { name, template });
  expect(created.status).toBe(201);
  return { name, id: created.body.id };
}
async function running(template = 'plain') {
  const made = await create(template);
  const workspace = await testbed.waitForBuild(server, made.name);
  expect(workspace).toMatchObject({ status: 'running' });
  const namespace: string = workspace.namespace;
  await testbed.exec(namespace, 'sh', '-c', 'echo mine > ~/work');
  const pod = await testbed.cluster.getPod(namespace, 'workspace-0');
  return { ...made, namespace, uid: pod!.metadata.uid };
}
const work = (namespace: string) => testbed.exec(namespace, 'sh', '-c', 'cat ~/work');
const discard = (name: string) =>
  testbed.request(server, 'DELETE', `/api/v1/workspaces/${name}?home=discard`);
const shown = (name: string, matches: (workspace: any) => boolean, forMs = 90_000) =>
  until(() => testbed.getWorkspace(server, name), matches, forMs);
/** Waits until the log of the newest build says it. */
async function says(name: string, text: RegExp, forMs = 60_000): Promise<string> {
  const { latestBuild } = await testbed.getWorkspace(server, name);
  return until(
    () => testbed.buildLog(server, latestBuild.id),
    (log) => text.test(log),
    forMs,
  );
}
const theCluster = async () => (await testbed.request(server, 'GET', '/api/v1/clusters')).body.items[0];
/** The build that the server itself asked for after `number`, ended well. */
const recovered = (name: string, number: number, forMs = 120_000) =>
  shown(
    name,
    ({ latestBuild, status }) =>
      latestBuild.number > number && testbed.hasEnded(latestBuild) && status === 'running',
    forMs,
  );

describe('the API server', () => {
  test(
    'away for a minute, and the server killed meanwhile: shown as away; nothing is judged lost',
    {
      timeout: 240_000,
    },
    async () => {
      const calm = await running();
      const ending = await running();
      testbed.apiProxy.disconnect();
      const gone = performance.now();

      expect(await until(theCluster, ({ state }) => state === 'away')).toMatchObject({
        reason: expect.any(String),
      });
      const late = await create();
      await says(late.name, /The cluster default (is away|does not answer)/);
      expect((await testbed.transitions.stop(server, ending.name)).status).toBe(202);
      await says(ending.name, /The cluster default (is away|does not answer)/);
      const seen = await shown(calm.name, ({ reason }) => /The cluster default is away/.test(reason ?? ''));
      expect(seen).toMatchObject({
        status: 'running',
        agent: { connected: true },
        latestBuild: { number: 1 },
      });
      expect((await testbed.request(server, 'GET', '/api/v1/orphans')).body).toEqual({
        items: [],
        unseen: ['default'],
      });

      await testbed.kill(server);
      server = await testbed.start();
      await until(theCluster, ({ state }) => state === 'away');
      await wait(Math.max(0, 60_000 - (performance.now() - gone)));
      expect(await testbed.getWorkspace(server, calm.name)).toMatchObject({
        status: 'running',
        latestBuild: { number: 1 },
      });
      expect(await testbed.getWorkspace(server, late.name)).toMatchObject({ status: 'starting' });
      expect(await testbed.getWorkspace(server, ending.name)).toMatchObject({ status: 'stopping' });
      testbed.apiProxy.restore();
      const back = performance.now();

      await until(theCluster, ({ state }) => state === 'ready');
      expect(performance.now() - back).toBeLessThan(20_000);
      expect(await testbed.waitForBuild(server, late.name)).toMatchObject({
        status: 'running',
        latestBuild: { number: 1 },
      });
      expect(await testbed.waitForBuild(server, ending.name)).toMatchObject({ status: 'stopped' });
      expect(await shown(calm.name, ({ reason }) => reason === null)).toMatchObject({
        status: 'running',
        latestBuild: { number: 1 },
      });
      expect((await testbed.cluster.getPod(calm.namespace, 'workspace-0'))!.metadata.uid).toBe(calm.uid);
      expect(await work(calm.namespace)).toBe('mine\n');
      for (const { name } of [calm, ending, late]) await discard(name);
    },
  );

  test('watches that are silent: what they missed is found', { timeout: 240_000 }, async () => {
    await testbed.kill(server);
    server = await testbed.start({ SILENT_MS: '10000' });
    onTestFinished(async () => {
      await testbed.kill(server);
      server = await testbed.start();
    });
    const { name, namespace } = await running();
    testbed.apiProxy.stall();
    await testbed.cluster.remove({ apiVersion: 'v1', kind: 'Pod', namespace, name: 'workspace-0' });
    const after = await recovered(name, 1);
    expect(after.latestBuild).toMatchObject({
      initiator: 'system',
      reason: 'The pod was deleted, not by cde',
    });
    expect(await work(namespace)).toBe('mine\n');
    await discard(name);
  });
});

describe('nodes', () => {
  test('drained while in use: said, and started again with its home', { timeout: 180_000 }, async () => {
    const { name, namespace } = await running();
    await testbed.cluster.evict(namespace, 'workspace-0');
    const after = await recovered(name, 1);
    expect(after.latestBuild).toMatchObject({
      initiator: 'system',
      reason: expect.stringMatching(/^The node \S+ was drained$/),
      status: 'succeeded',
    });
    expect(after.reason).toBeNull();
    expect(await work(namespace)).toBe('mine\n');
    await discard(name);
  });

  /** A node that is not there: its kubelet's part is played here, until it is lost. */
  async function makeNode(label: Record<string, string>) {
    const node = `${testbed.unique}-node`;
    const ref = { apiVersion: 'v1', kind: 'Node', name: node };
    const since = new Date().toISOString();
    const ready = () => ({
      conditions: [
        {
          type: 'Ready',
          status: 'True',
          reason: 'KubeletReady',
          lastTransitionTime: since,
          lastHeartbeatTime: new Date().toISOString(),
        },
      ],
    });
    const room = { cpu: '8', memory: '32Gi', pods: '20', 'ephemeral-storage': '100Gi' };
    const object: KubeObject = {
      apiVersion: 'v1',
      kind: 'Node',
      metadata: { name: node, labels: label },
      spec: { taints: [{ key: 'cde.dev/test', value: testbed.unique, effect: 'NoSchedule' }] },
      status: { capacity: room, allocatable: room, ...ready() },
    };
    await testbed.cluster.create(object);
    const beat = setInterval(() => {
      testbed.cluster.patch(ref, { status: ready() }, 'status').catch(() => {});
    }, 5_000);
    onTestFinished(async () => {
      clearInterval(beat);
      await testbed.cluster.remove(ref);
    });
    return { node, lose: () => clearInterval(beat) };
  }
  /** Plays the kubelet for the pod of a workspace: it runs, with a real agent beside it. */
  async function runPod(namespace: string, node: string): Promise<ChildProcess> {
    const pod = await until(
      () => testbed.cluster.getPod(namespace, 'workspace-0'),
      (found) => (found?.spec as { nodeName?: string })?.nodeName === node,
    );
    const now = new Date().toISOString();
    await testbed.cluster.patch(
      { apiVersion: 'v1', kind: 'Pod', namespace, name: 'workspace-0' },
      {
        status: {
          phase: 'Running',
          conditions: ['PodScheduled', 'Initialized', 'ContainersReady', 'Ready'].map((type) => ({
            type,
            status: 'True',
            lastTransitionTime: now,
          })),
          containerStatuses: [
            {
              name: 'workspace',
              image: 'x',
              imageID: '',
              ready: true,
              restartCount: 0,
              state: { running: { startedAt: now } },
            },
          ],
        },
      },
      'status',
    );
    const { containers } = pod!.spec as { containers: { env: { name: string; value?: string }[] }[] };
    const secret = await testbed.cluster.get({
      apiVersion: 'v1',
      kind: 'Secret',
      namespace,
      name: 'cde-agent',
    });
    const home = join(testbed.folder, 'elsewhere');
    await mkdir(home, { recursive: true });
    const agent = spawn(process.execPath, [fileURLToPath(new URL('../../agent/main.ts', import.meta.url))], {
      cwd: home,
      env: {
        PATH: process.env.PATH,
        HOME: home,
        CDE_SERVER_URL: containers[0]!.env.find((one) => one.name === 'CDE_SERVER_URL')!.value,
        CDE_AGENT_TOKEN: Buffer.from((secret!.data as { token: string }).token, 'base64').toString(),
      },
      stdio: 'ignore',
    });
    onTestFinished(() => void agent.kill('SIGKILL'));
    return agent;
  }

  test(
    'lost while in use: said; when it does not come back, started on another with its home',
    {
      timeout: 420_000,
    },
    async () => {
      const label = { [`cde.dev/${testbed.unique}`]: 'here' };
      const { node, lose } = await makeNode(label);
      const soon = { operator: 'Exists', effect: 'NoExecute', tolerationSeconds: 5 };
      const tolerations = [
        { key: 'cde.dev/test', operator: 'Exists', effect: 'NoSchedule' },
        { key: 'node.kubernetes.io/unreachable', ...soon },
        { key: 'node.kubernetes.io/not-ready', ...soon },
      ];
      // The agent that is played has no home there.
      await publish('movable', { nodeSelector: label, tolerations }, 'true');
      const { name } = await create('movable');
      const { namespace } = await shown(name, (workspace) => workspace.namespace !== null);
      const agent = await runPod(namespace, node);
      const started = await testbed.waitForBuild(server, name);
      expect(started, await testbed.buildLog(server, started.latestBuild.id)).toMatchObject({
        status: 'running',
      });
      const claim = () =>
        testbed.cluster.get({ apiVersion: 'v1', kind: 'PersistentVolumeClaim', namespace, name: 'home' });
      const volume = ((await claim())!.spec as { volumeName: string }).volumeName;

      const dead = once(agent, 'exit');
      agent.kill('SIGKILL');
      await dead;
      lose();
      const again = await shown(name, ({ latestBuild }) => latestBuild.number === 2, 150_000);
      expect(again.latestBuild).toMatchObject({
        initiator: 'system',
        reason: `The node ${node} was lost (not ready)`,
      });
      await says(
        name,
        /the pod workspace-0 does not end: its node does not answer\. It is struck off\./,
        120_000,
      );
      await says(name, /No node fits: .*not the labels asked for/);

      // Now there is room on another.
      const [other] = (await testbed.cluster.list({ apiVersion: 'v1', kind: 'Node' })).filter(
        ({ metadata, spec }) => metadata.name !== node && !(spec as { taints?: unknown[] }).taints?.length,
      );
      const ref = { apiVersion: 'v1', kind: 'Node', name: other!.metadata.name };
      await testbed.cluster.patch(ref, { metadata: { labels: label } });
      onTestFinished(async () => {
        const none = Object.fromEntries(Object.keys(label).map((key) => [key, null]));
        await testbed.cluster.patch(ref, { metadata: { labels: none } });
      });
      const moved = await testbed.waitForBuild(server, name);
      expect(moved).toMatchObject({ status: 'running', reason: null, agent: { connected: true } });
      expect(((await claim())!.spec as { volumeName: string }).volumeName).toBe(volume);
      await discard(name);
    },
  );
});

describe('what a cluster does not permit', () => {
  test(
    'quota exceeded by what else runs: named with its numbers; the start goes on when there is room',
    {
      timeout: 240_000,
    },
    async () => {
      const { name, namespace } = await running();
      await testbed.transitions.stop(server, name);
      expect(await testbed.waitForBuild(server, name)).toMatchObject({ status: 'stopped' });
      const quota = { apiVersion: 'v1', kind: 'ResourceQuota', namespace, name: 'company' };
      const limit = (memory: string) => ({ spec: { hard: { 'limits.memory': memory } } });
      const counts = (memory: string) =>
        until(
          () => testbed.cluster.get(quota),
          (found) => (found!.status as { hard?: Record<string, string> })?.hard?.['limits.memory'] === memory,
        );
      await testbed.cluster.create({
        apiVersion: 'v1',
        kind: 'ResourceQuota',
        metadata: { name: 'company', namespace },
        ...limit('300Mi'),
      });
      await counts('300Mi');
      const other: KubeObject = {
        apiVersion: 'v1',
        kind: 'Pod',
        metadata: { name: 'other', namespace },
        spec: {
          nodeSelector: { 'cde.dev/nowhere': 'true' },
          containers: [{ name: 'other', image: 'x', resources: { limits: { memory: '128Mi', cpu: '10m' } } }],
        },
      };
      await testbed.cluster.create(other);
      await testbed.transitions.start(server, name);
      await says(
        name,
        /The quota of the namespace does not leave room for the pod workspace-0: memory: 256Mi asked for, 128Mi of 300Mi used\./,
      );
      await testbed.cluster.removeObject(other);
      expect(await testbed.waitForBuild(server, name)).toMatchObject({
        status: 'running',
        reason: null,
        latestBuild: { number: 3 },
      });
      // What can never fit is said at once.
      await testbed.transitions.stop(server, name);
      await testbed.waitForBuild(server, name);
      await testbed.cluster.patch(quota, limit('64Mi'));
      await counts('64Mi');
      await testbed.transitions.start(server, name);
      expect(await testbed.waitForBuild(server, name)).toMatchObject({
        status: 'failed',
        reason: expect.stringContaining('256Mi asked for, 0 of 64Mi used'),
        latestBuild: { error: { code: 'quota-exceeded', fault: 'user' } },
      });
      expect(await testbed.cluster.remove(quota)).toBe(true);
      await testbed.transitions.start(server, name);
      expect(await testbed.waitForBuild(server, name)).toMatchObject({ status: 'running', reason: null });
      expect(await work(namespace)).toBe('mine\n');
      await discard(name);
    },
  );

  test(
    'the claim of the home is not bound: named; a mended template goes on',
    { timeout: 180_000 },
    async () => {
      await publish('unbound', { storageClass: 'cde-nowhere' });
      const { name } = await create('unbound');
      const failed = await testbed.waitForBuild(server, name);
      expect(failed, JSON.stringify(failed.latestBuild)).toMatchObject({
        status: 'failed',
        reason: 'The cluster has no storage class cde-nowhere, which the claim home asks for.',
        latestBuild: { error: { code: 'storage-class-missing' } },
      });
      await publish('unbound', {});
      await testbed.transitions.update(server, name);
      const mended = await testbed.waitForBuild(server, name);
      expect(mended, JSON.stringify(mended.latestBuild)).toMatchObject({ status: 'running', reason: null });
      await discard(name);
    },
  );

  test(
    'a namespace that a finalizer holds: named; the end goes on when it is let go',
    {
      timeout: 240_000,
    },
    async () => {
      const { name, id, namespace } = await running();
      await testbed.cluster.create({
        apiVersion: 'v1',
        kind: 'ConfigMap',
        metadata: { name: 'held', namespace, finalizers: ['cde.dev/test-hold'] },
      });
      expect((await testbed.transitions.delete(server, name)).status).toBe(202);
      await says(name, /cde\.dev\/test-hold in 1 resource instances/);
      await testbed.kill(server);
      server = await testbed.start();
      expect(await testbed.getWorkspace(server, name)).toMatchObject({ status: 'deleting' });
      await testbed.cluster.patch(
        { apiVersion: 'v1', kind: 'ConfigMap', namespace, name: 'held' },
        { metadata: { finalizers: null } },
      );
      await until(
        () => testbed.request(server, 'GET', `/api/v1/workspaces/${name}`),
        ({ status }) => status === 404,
        60_000,
      );
      const kept = await testbed.cluster.list({
        apiVersion: 'v1',
        kind: 'PersistentVolume',
        labels: `cde.dev/workspace=${id},cde.dev/home=kept`,
      });
      expect(kept).toHaveLength(1);
    },
  );
});

test(
  'two admins publish at once, while a workspace is updated: each version is whole',
  {
    timeout: 240_000,
  },
  async () => {
    const bob = await addUser(testbed.database, `bob-${testbed.unique}`, 'template-admin');
    const second = await testbed.start();
    await publish('shared', {});
    const { name } = await running('shared');
    const rounds = 6;
    for (let round = 0; round < rounds; round++) {
      const both = await Promise.all([
        testbed.publish(server, 'shared', { env: { BY: 'ada', ROUND: String(round) } }),
        testbed.publish(second, 'shared', { env: { BY: 'bob', ROUND: String(round) } }, bob.token),
        ...(round % 3 === 1 ? [testbed.transitions.update(server, name)] : []),
      ]);
      expect(both.slice(0, 2).map(({ status }) => status)).toEqual([201, 201]);
    }
    const { items } = (await testbed.request(server, 'GET', '/api/v1/templates/shared/versions?limit=100'))
      .body;
    const numbers = items.map(({ number }: { number: number }) => number);
    expect(numbers).toEqual(Array.from({ length: 1 + 2 * rounds }, (_, index) => 1 + 2 * rounds - index));
    expect(items.filter(({ active }: { active: boolean }) => active)).toHaveLength(1);
    await testbed.waitForBuild(server, name);
    await testbed.transitions.update(server, name);
    const updated = await testbed.waitForBuild(server, name);
    expect(updated).toMatchObject({ status: 'running', outdated: false });
    const active = items.find(({ active: is }: { active: boolean }) => is).number;
    expect(updated.templateVersion).toBe(active);
    const files = (await testbed.request(server, 'GET', `/api/v1/templates/shared/versions/${active}/files`))
      .body.files;
    const by = /"BY":"(\w+)"/.exec(files['template.yaml'])![1];
    const pod = await testbed.cluster.getPod(updated.namespace, 'workspace-0');
    // The agent's own environment comes from the server; the namespace is of one version and no other.
    expect(pod!.metadata.annotations?.['cde.dev/build-id']).toBe(updated.latestBuild.id);
    expect(['ada', 'bob']).toContain(by);
    expect(await work(updated.namespace)).toBe('mine\n');
    await testbed.kill(second);
    await discard(name);
  },
);
