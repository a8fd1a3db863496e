import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { KubeObject } from '@cde/server/providers/kubernetes/api/client.ts';
import { describe, expect, onTestFinished, test } from 'vitest';
import { compileCache } from '../kit/compile-cache.ts';
import { until } from '../kit/until.ts';
import { setUpFaultServer } from './fault-server.ts';

const rig = setUpFaultServer('faults-nodes');

describe('nodes', () => {
  test('drained while in use: reported, and the workspace starts again with its home', async () => {
    const { name, namespace } = await rig.createRunning();
    await rig.testbed.cluster.evict(namespace, 'workspace-0');
    const after = await rig.waitForRecovery(name, 1);
    expect(after.latestBuild).toMatchObject({
      initiator: 'system',
      reason: expect.stringMatching(/^The node \S+ was drained\.$/),
      status: 'succeeded',
    });
    expect(after.reason).toBeNull();
    await rig.expectHome(namespace);
    await rig.discard(name);
  });

  /** A node without a machine: the test reports its status as a kubelet would, until `lose`. */
  async function makeNode(node: string, label: Record<string, string>) {
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
      spec: { taints: [{ key: 'cde.dev/test', value: rig.testbed.unique, effect: 'NoSchedule' }] },
      status: { capacity: room, allocatable: room, ...ready() },
    };
    await rig.testbed.cluster.create(object);
    const beat = setInterval(() => {
      rig.testbed.cluster.patch(ref, { status: ready() }, 'status').catch(() => {});
    }, 5_000);
    onTestFinished(async () => {
      clearInterval(beat);
      await rig.testbed.cluster.remove(ref);
    });
    return { lose: () => clearInterval(beat) };
  }
  /** Reports a workspace's pod as running, as a kubelet would, and runs a real agent for it on this machine. */
  async function runPod(namespace: string, node: string): Promise<ChildProcess> {
    const pod = await until(
      () => rig.testbed.cluster.getPod(namespace, 'workspace-0'),
      (found) => found?.spec?.nodeName === node,
    );
    const now = new Date().toISOString();
    await rig.testbed.cluster.patch(
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
    const [container] = pod!.spec!.containers;
    const secret = await rig.testbed.cluster.get({
      apiVersion: 'v1',
      kind: 'Secret',
      namespace,
      name: 'cde-agent',
    });
    const home = join(rig.testbed.folder, 'elsewhere');
    await mkdir(home, { recursive: true });
    const agent = spawn(process.execPath, [fileURLToPath(new URL('../../agent/main.ts', import.meta.url))], {
      cwd: home,
      env: {
        PATH: process.env.PATH,
        ...compileCache,
        HOME: home,
        CDE_SERVER_URL: container!.env!.find((one) => one.name === 'CDE_SERVER_URL')!.value,
        CDE_AGENT_TOKEN: Buffer.from(secret!.data!.token!, 'base64').toString(),
      },
      stdio: 'ignore',
    });
    onTestFinished(() => void agent.kill('SIGKILL'));
    return agent;
  }

  test('lost while in use: reported; if it stays lost, the workspace starts on another node with its home', async () => {
    const node = `${rig.testbed.nextName()}-node`;
    const label = { [`cde.dev/${node}`]: 'here' };
    const { lose } = await makeNode(node, label);
    const soon = { operator: 'Exists', effect: 'NoExecute', tolerationSeconds: 5 };
    const tolerations = [
      { key: 'cde.dev/test', operator: 'Exists', effect: 'NoSchedule' },
      { key: 'node.kubernetes.io/unreachable', ...soon },
      { key: 'node.kubernetes.io/not-ready', ...soon },
    ];
    // The agent on this machine does not have that home.
    await rig.publish('movable', { nodeSelector: label, tolerations }, 'true');
    const { name } = await rig.create('movable');
    const { namespace } = await rig.waitForWorkspace(name, (workspace) => workspace.namespace !== null);
    const agent = await runPod(namespace, node);
    const started = await rig.waitForBuild(name);
    expect(started, await rig.testbed.buildLog(rig.server, started.latestBuild.id)).toMatchObject({
      status: 'running',
    });
    const claim = () =>
      rig.testbed.cluster.get({ apiVersion: 'v1', kind: 'PersistentVolumeClaim', namespace, name: 'home' });
    const volume = (await claim())!.spec!.volumeName;

    const dead = once(agent, 'exit');
    agent.kill('SIGKILL');
    await dead;
    lose();
    const again = await rig.waitForWorkspace(name, ({ latestBuild }) => latestBuild.number === 2);
    expect(again.latestBuild).toMatchObject({
      initiator: 'system',
      reason: `The node ${node} was lost (not ready).`,
    });
    await rig.waitForLog(
      name,
      /the pod workspace-0 does not terminate because its node is unreachable; it is force-deleted/,
    );
    await rig.waitForLog(name, /No node fits: .*not the requested labels/);

    // Now another node has room.
    const [other] = (await rig.testbed.cluster.list({ apiVersion: 'v1', kind: 'Node' })).filter(
      ({ metadata, spec }) => metadata.name !== node && !spec?.taints?.length,
    );
    const ref = { apiVersion: 'v1', kind: 'Node', name: other!.metadata.name };
    await rig.testbed.cluster.patch(ref, { metadata: { labels: label } });
    onTestFinished(async () => {
      const none = Object.fromEntries(Object.keys(label).map((key) => [key, null]));
      await rig.testbed.cluster.patch(ref, { metadata: { labels: none } });
    });
    const moved = await rig.waitForBuild(name);
    expect(moved).toMatchObject({ status: 'running', reason: null, agent: { connected: true } });
    expect((await claim())!.spec!.volumeName).toBe(volume);
    await rig.discard(name);
  });
});
