import type { WorkspaceActivity } from '@cde/api/activity.ts';
import type { Kube } from '@cde/server/providers/kubernetes/api/models.ts';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Machine, makeMachine } from '../kit/machine.ts';
import { until } from '../kit/until.ts';
import { setUpFaultServer } from './fault-server.ts';
import { scaleDownBlockers } from './scale-down.ts';

const rig = setUpFaultServer('idle');
const idleSeconds = 20;
const dayMs = 24 * 3600_000;
const path = (name: string, rest: string) => `/api/v1/workspaces/${name}/${rest}`;
let laptop: Machine;
let daysAhead = 0;

beforeAll(async () => {
  await setBounds({ minStopAfterSeconds: null, brakePercent: 100, dormantAfterDays: 2 });
  laptop = await makeMachine({ CDE_URL: rig.server.url, CDE_TOKEN: rig.testbed.ada.token });
});
afterAll(() => laptop?.remove());

async function setBounds(change: object): Promise<void> {
  const { body } = await rig.testbed.request(rig.server, 'GET', '/api/v1/cleanup/policy');
  const { status } = await rig.testbed.request(rig.server, 'PUT', '/api/v1/cleanup/policy', {
    ...body,
    ...change,
  });
  expect(status).toBe(200);
}

const chooseIdlePolicy = (name: string, policy: object) =>
  rig.testbed.request(rig.server, 'PUT', path(name, 'idle-policy'), policy);
/** Called when a test has set up what it observes: on a busy machine that takes longer than the workspace may be idle. */
async function stopWhenIdle(name: string): Promise<void> {
  expect(await chooseIdlePolicy(name, { stopAfterSeconds: idleSeconds })).toMatchObject({ status: 200 });
}
const untilStopped = (name: string) => rig.waitForWorkspace(name, ({ status }) => status === 'stopped');

/** What kubectl says when it drains the only node of the pods of one workspace. */
async function drain(workspaceId: string): Promise<string> {
  const [node] = await rig.testbed.cluster.list({ apiVersion: 'v1', kind: 'Node' });
  const selector = `--pod-selector=cde.dev/workspace=${workspaceId}`;
  return rig.testbed
    .kubectl('drain', node!.metadata.name, selector, '--ignore-daemonsets', '--dry-run=server')
    .catch((error: { stderr: string }) => error.stderr);
}

const findClaim = (namespace: string) =>
  rig.testbed.cluster.get({ apiVersion: 'v1', kind: 'PersistentVolumeClaim', namespace, name: 'home' });
const findNamespace = (name: string) =>
  rig.testbed.cluster.get({ apiVersion: 'v1', kind: 'Namespace', name });
const findVolume = (name: string): Promise<Kube<'PersistentVolume'> | null> =>
  rig.testbed.cluster.get({ apiVersion: 'v1', kind: 'PersistentVolume', name });

describe.concurrent('a workspace', () => {
  test('that nobody uses is stopped, holds no node then, and has its home when it is started again', async () => {
    const { name, id, namespace } = await rig.createRunning();
    // The checkers must be able to find something.
    expect(await scaleDownBlockers(rig.testbed.cluster, [namespace])).not.toEqual([]);
    expect(await drain(id)).toContain('cannot delete Pods with local storage');
    await stopWhenIdle(name);
    const stopped = await untilStopped(name);
    expect(stopped.latestBuild).toMatchObject({
      initiator: 'system',
      reason: expect.stringMatching(/^stopped because it was idle/),
    });
    // The pod has its grace period.
    await until(
      () => scaleDownBlockers(rig.testbed.cluster, [namespace]),
      (blockers) => blockers.length === 0,
    );
    expect((await drain(id)).trim().split('\n')).toEqual([
      expect.stringMatching(/cordoned \(server dry run\)$/),
      expect.stringMatching(/drained \(server dry run\)$/),
    ]);
    await chooseIdlePolicy(name, {});
    await rig.testbed.transitions.start(rig.server, name);
    expect(await rig.waitForBuild(name)).toMatchObject({ status: 'running' });
    await rig.expectHome(namespace);
    await rig.discard(name);
  });

  test('whose build runs without a connection stays awake', async () => {
    const { name, namespace } = await rig.createRunning();
    // As make does it: several jobs, each a series of short processes.
    const compile = `sh -c 'i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done'`;
    const job = `(while :; do ${compile}; done) >/dev/null 2>&1 &`;
    await rig.testbed.exec(namespace, 'sh', '-c', `for job in 1 2 3; do ${job} done`);
    const startedAt = Date.now();
    await stopWhenIdle(name);
    await until(
      async (): Promise<WorkspaceActivity> =>
        (await rig.testbed.request(rig.server, 'GET', path(name, 'activity'))).body,
      ({ signals }) => {
        const { lastAt } = signals.find(({ signal }) => signal === 'process-cpu')!;
        return lastAt !== null && Date.parse(lastAt) - startedAt > 2 * idleSeconds * 1000;
      },
    );
    expect(await rig.testbed.getWorkspace(rig.server, name)).toMatchObject({
      status: 'running',
      idle: { awakeBecause: { signal: 'process-cpu' } },
    });
    await rig.discard(name);
  });

  test('is stopped under a command that is attached and prints nothing', async () => {
    const { name } = await rig.createRunning();
    const attached = laptop.begin(['ssh', name, '--', 'echo there; exec sleep 10000']);
    await attached.says('there');
    await stopWhenIdle(name);
    expect((await untilStopped(name)).latestBuild.reason).toMatch(/^stopped because it was idle/);
    const { code, stderr } = await attached.ended;
    expect([code, stderr]).toEqual([255, expect.stringContaining('stopped')]);
    await rig.discard(name);
  });
});

test('a dormant workspace has no namespace and keeps its volume, which its next start finds', async () => {
  const { name, namespace } = await rig.createRunning();
  const volume = (await findClaim(namespace))!.spec!.volumeName!;
  await rig.testbed.transitions.stop(rig.server, name);
  expect(await rig.waitForBuild(name)).toMatchObject({ status: 'stopped', namespace });
  // Further ahead in a retry: clocks do not go back.
  daysAhead += 3;
  await rig.restartServer({ AHEAD_MS: String(daysAhead * dayMs) });
  expect(await rig.waitForWorkspace(name, (workspace) => workspace.namespace === null)).toMatchObject({
    status: 'stopped',
    reason: expect.stringMatching(/^Dormant/),
  });
  expect(await findNamespace(namespace)).toBeNull();
  expect(await findVolume(volume)).toMatchObject({
    metadata: { labels: { 'cde.dev/home': 'kept' } },
    spec: { persistentVolumeReclaimPolicy: 'Retain' },
  });
  await rig.testbed.transitions.start(rig.server, name);
  expect(await rig.waitForBuild(name)).toMatchObject({ status: 'running', namespace });
  expect((await findClaim(namespace))!.spec!.volumeName).toBe(volume);
  expect(await findVolume(volume)).toMatchObject({ metadata: { labels: { 'cde.dev/home': 'used' } } });
  await rig.expectHome(namespace);
  await rig.discard(name);
});
