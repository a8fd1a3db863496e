// Simulated nodes: kwok keeps thousands of them Ready and reports their pods as Running. A pod is scheduled there
// with the node selector `type: kwok` and a toleration of the taint `kwok.x-k8s.io/node`.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CoordinationV1Api, CoreV1Api, KubeConfig, V1MicroTime } from '@kubernetes/client-node';
import { until } from '../kit/until.ts';
import { goBuildEnvironment, goCommand } from './go-toolchain.ts';
import { runAsync } from './machine.ts';
import { kwokVersion, tool } from './tool.ts';

/** The taint that keeps real pods off the nodes, and the label that selects them. */
export const kwokTaint = { key: 'kwok.x-k8s.io/node', value: 'fake', effect: 'NoSchedule' } as const;
export const kwokSelector = { type: 'kwok' } as const;

/** The namespace of node leases. */
const namespace = 'kube-node-lease';
const renewMs = 10_000;

export interface Kwok {
  /** The names of its nodes. */
  nodes: string[];
  /** Ends kwok and deletes its nodes. Delete the pods on them first, or they stay Terminating. */
  stop(): Promise<void>;
}

/** The stages of nodes and pods from kwok's module: Ready, Running and deleted, without delay. */
async function stages(): Promise<string> {
  const shown = await runAsync(goCommand(), ['mod', 'download', '-json', `sigs.k8s.io/kwok@${kwokVersion}`], {
    cwd: '/',
    env: goBuildEnvironment,
  });
  const folder = join((JSON.parse(shown) as { Dir: string }).Dir, 'kustomize/stage');
  const files = [
    'node/fast/node-initialize.yaml',
    'node/heartbeat-with-lease/node-heartbeat-with-lease.yaml',
    ...['pod-ready', 'pod-complete', 'pod-delete'].map((name) => `pod/fast/${name}.yaml`),
  ];
  return files.map((file) => readFileSync(join(folder, file), 'utf8')).join('\n---\n');
}

const hasEnded = (child: ChildProcess) => child.exitCode !== null || child.signalCode !== null;

/**
 * Adds `count` nodes named `PREFIX-0` … to the kubeconfig's cluster and waits until they are Ready. Ends with this
 * process at the latest; the nodes then remain NotReady until they are deleted.
 */
export async function startKwok(kubeconfig: string, prefix: string, count: number): Promise<Kwok> {
  const program = await tool('kwok');
  const folder = mkdtempSync(join(tmpdir(), 'cde-kwok-'));
  const config = join(folder, 'stages.yaml');
  writeFileSync(config, await stages());
  const args = [
    ...['--kubeconfig', kubeconfig, '--config', config, '--manage-all-nodes=false'],
    // kwok sometimes stops renewing leases for a minute and then ignores the pods of those nodes, so we renew them.
    ...[`--manage-nodes-with-label-selector=cde-kwok=${prefix}`, '--node-lease-duration-seconds=0'],
  ];
  const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  let log = '';
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
    log = (log + chunk).slice(-4000);
  });
  const endWithUs = () => child.kill();
  process.once('exit', endWithUs);

  const client = new KubeConfig();
  client.loadFromFile(kubeconfig);
  const core = client.makeApiClient(CoreV1Api);
  const leases = client.makeApiClient(CoordinationV1Api);
  const nodes = Array.from({ length: count }, (_, index) => `${prefix}-${index}`);

  /** A node whose lease is not renewed for 50 s counts as lost. */
  let renewal: NodeJS.Timeout | null = null;
  const renew = async () => {
    const spec = { holderIdentity: prefix, leaseDurationSeconds: 40, renewTime: new V1MicroTime() };
    for (const name of nodes) {
      const body = await leases.readNamespacedLease({ name, namespace });
      await leases.replaceNamespacedLease({ name, namespace, body: { ...body, spec } });
    }
  };

  const stop = async () => {
    if (renewal) clearInterval(renewal);
    for (const name of nodes) {
      await core.deleteNode({ name }).catch(() => {});
      await leases.deleteNamespacedLease({ name, namespace }).catch(() => {});
    }
    process.off('exit', endWithUs);
    child.kill();
    if (!hasEnded(child)) await once(child, 'exit');
    rmSync(folder, { recursive: true, force: true });
  };

  try {
    for (const name of nodes) {
      await core.createNode({
        body: {
          metadata: {
            name,
            labels: {
              ...kwokSelector,
              'cde-kwok': prefix,
              'kubernetes.io/hostname': name,
              'kubernetes.io/os': 'linux',
            },
            annotations: { [kwokTaint.key]: kwokTaint.value },
          },
          spec: { taints: [kwokTaint] },
          status: {
            allocatable: { cpu: '64', memory: '256Gi', pods: '110' },
            capacity: { cpu: '64', memory: '256Gi', pods: '110' },
          },
        },
      });
    }
    for (const name of nodes)
      await leases.createNamespacedLease({ namespace, body: { metadata: { name, namespace } } });
    await renew();
    renewal = setInterval(() => void renew().catch(() => {}), renewMs).unref();
    await until(
      async () => {
        if (hasEnded(child)) throw new Error(`kwok ended:\n${log}`);
        const { items } = await core.listNode({ labelSelector: `cde-kwok=${prefix}` });
        return items.every((node) =>
          node.status?.conditions?.some((it) => it.type === 'Ready' && it.status === 'True'),
        );
      },
      Boolean,
      { forMs: 60_000, why: () => `kwok's nodes did not become Ready:\n${log}` },
    );
  } catch (error) {
    await stop();
    throw error;
  }
  return { nodes, stop };
}
