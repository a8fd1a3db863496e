import { expect, test } from 'vitest';
import type { ClusterView, Connection } from './api/connections.ts';
import type { KubeNode } from './api/node-view.ts';
import { findIncidents, listKubernetesNodes } from './nodes.ts';

const at = (minute: number) => new Date(Date.UTC(2026, 0, 1, 12, minute)).toISOString();
const ready = { state: 'ready', since: at(0) };
const drift = { at: at(5), sysctl: 'vm.swappiness', from: '30', to: '1', by: '/etc/sysctl.d/9.conf line 2' };

function node(name: string, report?: unknown, more: object = {}): KubeNode {
  return {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: {
      name,
      uid: `uid-${name}`,
      labels: { 'karpenter.sh/nodepool': 'dev' },
      annotations:
        report === undefined
          ? {}
          : { 'cde.dev/kernel-profiles': typeof report === 'string' ? report : JSON.stringify(report) },
    },
    status: {
      conditions: [{ type: 'Ready', status: 'True' }],
      capacity: { cpu: '4', memory: '16Gi', pods: '110', 'ephemeral-storage': '100Gi' },
      allocatable: { cpu: '3920m', memory: '15Gi', pods: '110', 'ephemeral-storage': '94489280512' },
    },
    ...more,
  } as unknown as KubeNode;
}

/** Workspaces by name, each with the node of its pod and the profile that it needs. */
function view(pods: Record<string, { on: string; profile?: string; startedAt?: string }>): ClusterView {
  return {
    namespaces: () =>
      Object.keys(pods).map((name) => ({
        metadata: { name, labels: { 'cde.dev/workspace': `id-${name}` } },
      })),
    get: (_kind: string, namespace: string) => {
      const { on, profile, startedAt = at(0) } = pods[namespace]!;
      return {
        metadata: { name: 'workspace-0' },
        spec: {
          nodeName: on,
          ...(profile && { nodeSelector: { [`cde.dev/kernel-profile.${profile}`]: 'ready' } }),
        },
        status: { startTime: startedAt },
      };
    },
  } as unknown as ClusterView;
}

const connection = (
  nodes: KubeNode[],
  pods: Parameters<typeof view>[0] = {},
  more: Partial<Connection> = {},
): Connection =>
  ({
    record: { name: 'eu' },
    state: 'ready',
    reason: null,
    view: view(pods),
    nodes: { synced: true, reason: null, all: () => nodes },
    ...more,
  }) as unknown as Connection;
const list = (...all: Connection[]) => listKubernetesNodes({ all: () => all }, undefined);

test('shows capacity, workspaces and what noded reports', () => {
  const report = {
    profiles: {
      web: { state: 'not-ready', reason: 'contested', message: 'Something sets it.', since: at(3), drift },
      scylla: ready,
    },
    left: { 'vm.dirty_ratio': 'It cannot be restored.' },
  };
  const { nodes, unseen } = list(
    connection([node('n1', report), node('n2')], { a: { on: 'n1' }, b: { on: 'n1' }, c: { on: 'gone' } }),
  );
  expect(unseen).toEqual([]);
  expect(nodes[0]).toMatchObject({
    name: 'n1',
    cluster: 'eu',
    state: 'ready',
    pool: 'dev',
    capacity: { cpus: 4, memoryBytes: 16 * 2 ** 30, pods: 110 },
    allocatable: { cpus: 3.92, storageBytes: 94489280512 },
    workspaceIds: ['id-a', 'id-b'],
    kernelProfiles: [
      { name: 'scylla', state: 'ready', reason: null, lastDrift: null },
      { name: 'web', state: 'not-ready', reason: 'contested', lastDrift: drift },
    ],
    notRestored: [{ sysctl: 'vm.dirty_ratio', message: 'It cannot be restored.' }],
  });
  expect(nodes[1]).toMatchObject({ workspaceIds: [], kernelProfiles: [], kernelFault: null });
});

test('an annotation that is not from noded shows nothing', () => {
  for (const report of ['{', '[]', 'null', { profiles: { a: { state: 'maybe' } } }, { profiles: 3 }])
    expect(list(connection([node('n1', report)])).nodes[0]).toMatchObject({ kernelProfiles: [] });
  // A drift that makes no sense does not hide the state.
  const half = { profiles: { a: { ...ready, drift: { at: 'yesterday' } } } };
  expect(list(connection([node('n1', half)])).nodes[0]!.kernelProfiles).toMatchObject([
    { state: 'ready', lastDrift: null },
  ]);
});

test('of an unreachable cluster, the last known nodes are shown as unknown', () => {
  const away = connection([node('n1')], {}, { state: 'away', reason: 'It does not answer.' });
  const fresh = connection([], {}, {
    state: 'connecting',
    nodes: { synced: false, reason: null, all: () => [] },
  } as unknown as Partial<Connection>);
  const { nodes, unseen } = list(away, fresh);
  expect(nodes).toMatchObject([{ name: 'n1', state: 'unknown' }]);
  expect(unseen).toEqual([
    { name: 'eu', reason: 'It does not answer.' },
    { name: 'eu', reason: 'The server is connecting to it.' },
  ]);
});

test('a cordoned node, and one that is not ready', () => {
  const broken = node('n1', undefined, {
    spec: { unschedulable: true },
    status: { conditions: [{ type: 'Ready', status: 'False', message: 'The disk is full.' }] },
  });
  expect(list(connection([broken])).nodes[0]).toMatchObject({
    state: 'not-ready',
    reason: 'The disk is full.',
    schedulable: false,
    capacity: { cpus: null },
  });
});

const incidents = (after: object, before: object | null, pods: Parameters<typeof view>[0]) =>
  findIncidents(connection([], pods), node('n1', after), before && node('n1', before), new Date(at(10)));
const pods = {
  needs: { on: 'n1', profile: 'scylla' },
  not: { on: 'n1' },
  other: { on: 'n2', profile: 'scylla' },
  newer: { on: 'n1', profile: 'scylla', startedAt: at(6) },
};

test('a drift concerns the workspaces that need the profile and ran at the time, once', () => {
  const calm = { profiles: { scylla: ready } };
  const drifted = { profiles: { scylla: { ...ready, drift } } };
  expect(incidents(drifted, calm, pods)).toEqual([
    {
      workspaceId: 'id-needs',
      key: `uid-n1 scylla drift ${at(5)}`,
      at: new Date(at(5)),
      level: 'warn',
      text: 'The node n1 drifted from the kernel profile scylla: vm.swappiness was changed from 1 to 30 (/etc/sysctl.d/9.conf line 2). noded set it to 1 again.',
    },
  ]);
  expect(incidents(drifted, drifted, pods)).toEqual([]);
  // A server that starts reports it too, with the same key.
  expect(incidents(drifted, null, pods)).toEqual(incidents(drifted, calm, pods));
  const old = { profiles: { scylla: { ...ready, drift: { ...drift, at: '2026-01-01T10:00:00.000Z' } } } };
  expect(incidents(old, null, { needs: { ...pods.needs, startedAt: '2026-01-01T09:00:00.000Z' } })).toEqual(
    [],
  );
  const future = { profiles: { scylla: { ...ready, drift: { ...drift, at: '2036-01-01T00:00:00.000Z' } } } };
  expect(incidents(future, calm, pods)).toEqual([]);
});

test('a profile that is lost, and one that is back', () => {
  const lost = { state: 'not-ready', reason: 'contested', message: 'Something sets it.', since: at(7) };
  const back = { state: 'ready', since: at(9) };
  const [first] = incidents({ profiles: { scylla: lost } }, { profiles: { scylla: ready } }, pods);
  expect(first).toMatchObject({
    level: 'warn',
    text: 'The node n1 no longer maintains the kernel profile scylla (contested): Something sets it.',
  });
  const again = incidents({ profiles: { scylla: back } }, { profiles: { scylla: lost } }, pods);
  expect(again.map(({ workspaceId, level }) => [workspaceId, level])).toEqual([
    ['id-needs', 'info'],
    ['id-newer', 'info'],
  ]);
  // What is ready from the start is no news.
  expect(incidents({ profiles: { scylla: back } }, null, pods)).toEqual([]);
});
