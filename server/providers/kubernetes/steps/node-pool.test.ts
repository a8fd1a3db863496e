import { expect, test } from 'vitest';
import type { KubeNode } from '../api/node-view.ts';
import { nodePoolOf, readNodePool } from './node-pool.ts';

test.each([
  [{ 'cloud.google.com/gke-nodepool': 'dev' }, 'dev'],
  [{ 'eks.amazonaws.com/nodegroup': 'dev' }, 'dev'],
  [{ 'kubernetes.azure.com/agentpool': 'dev' }, 'dev'],
  // A node of Karpenter on EKS can have both.
  [{ 'eks.amazonaws.com/nodegroup': 'system', 'karpenter.sh/nodepool': 'dev' }, 'dev'],
  [{ 'kubernetes.io/arch': 'arm64' }, null],
  [undefined, null],
])('the pool of a node with the labels %j is %s', (labels, pool) => {
  expect(nodePoolOf(labels as Record<string, string> | undefined, undefined)).toBe(pool);
});

test('a label of the installation wins', () => {
  const labels = { 'example.com/team-pool': 'gpu', 'karpenter.sh/nodepool': 'dev' };
  expect(nodePoolOf(labels, 'example.com/team-pool')).toBe('gpu');
  expect(nodePoolOf(labels, 'example.com/other')).toBe('dev');
});

test('a node that is gone has none', async () => {
  const gone = { client: { get: async () => null }, nodes: { get: () => undefined } };
  expect(await readNodePool(gone, 'n1', undefined)).toBeNull();
  expect(await readNodePool(gone, undefined, undefined)).toBeNull();
});

test('a node that the watch knows is not read again', async () => {
  const labels = { 'karpenter.sh/nodepool': 'dev' };
  const node: KubeNode = { apiVersion: 'v1', kind: 'Node', metadata: { name: 'n1', labels } };
  const client = { get: () => expect.unreachable() };
  expect(await readNodePool({ client, nodes: { get: () => node } }, 'n1', undefined)).toBe('dev');
});
