import { expect, test } from 'vitest';
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
  expect(await readNodePool({ get: async () => null } as never, 'n1', undefined)).toBeNull();
  expect(await readNodePool({} as never, undefined, undefined)).toBeNull();
});
